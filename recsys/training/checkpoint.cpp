#include "tally/recsys/training/checkpoint.h"

#include "tally/core/atomic_directory.h"
#include "tally/core/safetensors.h"
#include "tally/nn/serialize.h"

namespace tally::recsys {
namespace {

constexpr std::int64_t kFormat = 1;  // of the directory; raised when older ones can no longer be read
constexpr const char* kModelFile = "model.safetensors";
constexpr const char* kOptimizerFile = "optimizer.safetensors";

/// Verifies checksums, format and identity; returns the manifest's fields.
Json open(const std::filesystem::path& directory, const Json& identity) {
  Json fields = verify_directory(directory);
  const Json* format = fields.find("format");
  check<IoError>(format != nullptr && format->as_integer() == kFormat, directory.string(), "is a checkpoint of format ",
                 format == nullptr ? "none" : format->dump(), "; this program reads ", kFormat);
  const Json& theirs = fields.at("identity");
  for (const auto& [name, value] : identity.members()) {
    const Json* other = theirs.find(name);
    check<IoError>(other != nullptr && *other == value, directory.string(), "is of another run: its ", name, " is ",
                   other == nullptr ? "absent" : other->dump(), ", here it is ", value.dump());
  }
  return fields;
}

}  // namespace

void save_checkpoint(const std::filesystem::path& directory, SequenceModel& model, const optim::Optimizer& optimizer,
                     const TrainerProgress& progress, const Json& identity) {
  AtomicDirectory files(directory);
  nn::save_state(files.file(kModelFile), model.state());
  save_safetensors(files.file(kOptimizerFile), optimizer.state());
  files.commit(Json::object({{"format", kFormat}, {"identity", identity}, {"progress", progress.to_json()}}));
}

TrainerProgress load_checkpoint(const std::filesystem::path& directory, SequenceModel& model,
                                optim::Optimizer& optimizer, const Json& identity) {
  const Json fields = open(directory, identity);
  const TrainerProgress progress = TrainerProgress::from_json(fields.at("progress"));
  optimizer.load_state(load_safetensors(directory / kOptimizerFile).tensors);
  nn::load_state(directory / kModelFile, model.state());
  return progress;
}

void save_weights(const std::filesystem::path& directory, SequenceModel& model, const Json& identity) {
  AtomicDirectory files(directory);
  nn::save_state(files.file(kModelFile), model.state());
  files.commit(Json::object({{"format", kFormat}, {"identity", identity}}));
}

void load_weights(const std::filesystem::path& directory, SequenceModel& model, const Json& identity) {
  open(directory, identity);
  nn::load_state(directory / kModelFile, model.state());
}

}  // namespace tally::recsys
