#pragma once

#include <string>

#include "tally/nn/module.h"
#include "tally/recsys/models/state_bytes.h"

namespace tally::recsys {

/// A hash of all tensors of a module, their names and shapes.
template <class M>
std::uint64_t weights_fingerprint(const M& module) {
  Fingerprint hash;
  nn::walk("", module, [&](const std::string& path, const auto& field) {
    const Tensor tensor = field.value().contiguous();
    hash.update(path);
    for (std::int64_t d = 0; d < tensor.rank(); ++d) hash.update(std::to_string(tensor.dim(d)));
    hash.update({reinterpret_cast<const char*>(tensor.raw_data()), tensor.bytes()});
  });
  return hash.value();
}

}  // namespace tally::recsys
