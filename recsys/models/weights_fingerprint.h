#pragma once

#include <map>
#include <string>

#include "tally/core/io/fingerprint.h"
#include "tally/nn/module.h"

namespace tally::recsys {

/// Adds a tensor, its name and its shape.
inline void add_tensor(Fingerprint& hash, const std::string& path, const Tensor& values) {
  const Tensor tensor = values.contiguous();
  hash.update(path);
  for (std::int64_t d = 0; d < tensor.rank(); ++d) hash.update(std::to_string(tensor.dim(d)));
  hash.update({reinterpret_cast<const char*>(tensor.raw_data()), tensor.bytes()});
}

/// A hash of tensors, their names and shapes.
inline std::uint64_t weights_fingerprint(const std::map<std::string, Tensor>& tensors) {
  Fingerprint hash;
  for (const auto& [name, tensor] : tensors) add_tensor(hash, name, tensor);
  return hash.value();
}

/// A hash of all tensors of a module, their names and shapes.
template <nn::Module M>
std::uint64_t weights_fingerprint(const M& module) {
  Fingerprint hash;
  nn::walk("", module, [&](const std::string& path, const auto& field) { add_tensor(hash, path, field.value()); });
  return hash.value();
}

}  // namespace tally::recsys
