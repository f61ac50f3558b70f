#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tally/nn/module.h"

namespace tally::nn {

/// Writes parameters and buffers by path as safetensors, whole or not at all. Throws ValueError naming a path that two
/// of them have.
void save_state(const std::filesystem::path& path, const TensorList& state,
                const std::map<std::string, std::string>& metadata = {});

/// Reads what save_state wrote into tensors of the same paths and shapes. Throws IoError listing every tensor that is
/// missing, left over, or of another shape or type (with both); then nothing was changed. Returns the metadata.
std::map<std::string, std::string> load_state(const std::filesystem::path& path, const TensorList& state);

template <Module M>
void save(const std::filesystem::path& path, const M& module) {
  // The list is only read from: saving does not change the module.
  save_state(path, state(const_cast<M&>(module)));
}
template <Module M>
void load(const std::filesystem::path& path, M& module) {
  load_state(path, state(module));
}

}  // namespace tally::nn
