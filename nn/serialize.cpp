#include "tally/nn/serialize.h"

#include "tally/core/io/safetensors.h"

namespace tally::nn {
namespace {

/// A file has a place for each path.
void check_path(bool is_new, const std::string& path) {
  check<ValueError>(is_new, "state", "needs a path of its own for each tensor; two have the path '", path, "'");
}

}  // namespace

void save_state(const std::filesystem::path& path, const TensorList& state,
                const std::map<std::string, std::string>& metadata) {
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, tensor] : state) check_path(tensors.emplace(name, *tensor).second, name);
  save_safetensors(path, tensors, metadata);
}

std::map<std::string, std::string> load_state(const std::filesystem::path& path, const TensorList& state) {
  const TensorFile file = load_safetensors(path);
  std::string missing, unexpected, mismatched;
  const auto list = [](std::string& text, const std::string& item) { text += (text.empty() ? "" : ", ") + item; };
  std::map<std::string, Tensor*> wanted;
  for (const auto& [name, tensor] : state) {
    check_path(wanted.emplace(name, tensor).second, name);
    const auto found = file.tensors.find(name);
    if (found == file.tensors.end()) {
      list(missing, name);
    } else if (found->second.shape() != tensor->shape() || found->second.dtype() != tensor->dtype()) {
      list(mismatched, tally::detail::join(name, " (needs ", tensor->dtype(), tensor->shape(), ", got ",
                                           found->second.dtype(), found->second.shape(), ')'));
    }
  }
  for (const auto& [name, tensor] : file.tensors) {
    if (!wanted.contains(name)) list(unexpected, name);
  }
  check<IoError>(missing.empty() && unexpected.empty() && mismatched.empty(), path.string(), "does not fit this model",
                 missing.empty() ? "" : "; missing: " + missing, unexpected.empty() ? "" : "; left over: " + unexpected,
                 mismatched.empty() ? "" : "; of another shape: " + mismatched);
  for (const auto& [name, tensor] : wanted) tensor->copy_from(file.tensors.at(name));
  return file.metadata;
}

}  // namespace tally::nn
