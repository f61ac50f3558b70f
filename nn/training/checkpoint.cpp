#include "tally/nn/training/checkpoint.h"

#include "tally/core/io/atomic_directory.h"
#include "tally/core/io/safetensors.h"
#include "tally/nn/serialize.h"

namespace tally::nn {
namespace {

constexpr std::int64_t kFormat = 1;  // of the directory; raised when older ones can no longer be read
constexpr const char* kModelFile = "model.safetensors";
constexpr const char* kOptimizerFile = "optimizer.safetensors";

const Json* member_of(const Json* object, const std::string& name) {
  return object != nullptr && object->is(Json::Kind::object) ? object->find(name) : nullptr;
}

/// Throws unless two values are the same, naming the innermost one that differs. What theirs lacks stands at `absent`;
/// what ours lacks has no effect here if `absent` knows it.
void check_same(const std::filesystem::path& directory, const std::string& name, const Json* theirs, const Json& ours,
                const Json* absent) {
  if (theirs == nullptr) theirs = absent;
  if (theirs != nullptr && *theirs == ours) return;
  if (theirs != nullptr && theirs->is(Json::Kind::object) && ours.is(Json::Kind::object)) {
    for (const auto& [member, value] : ours.members())
      check_same(directory, name + '.' + member, theirs->find(member), value, member_of(absent, member));
    for (const auto& [member, value] : theirs->members()) {
      const bool known = ours.find(member) != nullptr || member_of(absent, member) != nullptr;
      check<IoError>(known, directory.string(), "is of another run: this program has no ", name, '.', member,
                     ", there it is ", value.dump());
    }
    return;
  }
  fail<IoError>(directory.string(), "is of another run: its ", name, " is ",
                theirs == nullptr ? "absent" : theirs->dump(), ", here it is ", ours.dump());
}

/// Verifies checksums, format and identity; returns the manifest's fields.
Json open(const std::filesystem::path& directory, const Json& identity, const Json& defaults) {
  Json fields = verify_directory(directory);
  const Json* format = fields.find("format");
  check<IoError>(format != nullptr && *format == Json(kFormat), directory.string(), "is a checkpoint of format ",
                 format == nullptr ? "none" : format->dump(), "; this program reads ", kFormat);
  const Json* theirs = fields.find("identity");
  check<IoError>(theirs != nullptr, directory.string(), "is no checkpoint: it does not say of which run it is");
  for (const auto& [name, value] : identity.members()) {
    check_same(directory, name, theirs->find(name), value, member_of(&defaults, name));
  }
  return fields;
}

}  // namespace

void save_checkpoint(const std::filesystem::path& directory, const TensorList& state, const optim::Optimizer& optimizer,
                     const TrainerProgress& progress, const Json& identity) {
  AtomicDirectory files(directory);
  save_state(files.file(kModelFile), state);
  save_safetensors(files.file(kOptimizerFile), optimizer.state());
  files.commit(Json::object({{"format", kFormat}, {"identity", identity}, {"progress", progress.to_json()}}));
}

TrainerProgress load_checkpoint(const std::filesystem::path& directory, const TensorList& state,
                                optim::Optimizer& optimizer, const Json& identity, const Json& defaults) {
  const Json fields = open(directory, identity, defaults);
  const Json* written = fields.find("progress");
  check<IoError>(written != nullptr, directory.string(), "holds weights alone; a run cannot go on from them");
  const TrainerProgress progress = TrainerProgress::from_json(*written);
  optimizer.load_state(load_safetensors(directory / kOptimizerFile).tensors);
  load_state(directory / kModelFile, state);
  return progress;
}

void save_weights(const std::filesystem::path& directory, const TensorList& state, const Json& identity) {
  AtomicDirectory files(directory);
  save_state(files.file(kModelFile), state);
  files.commit(Json::object({{"format", kFormat}, {"identity", identity}}));
}

void load_weights(const std::filesystem::path& directory, const TensorList& state, const Json& identity,
                  const Json& defaults) {
  open(directory, identity, defaults);
  load_state(directory / kModelFile, state);
}

}  // namespace tally::nn
