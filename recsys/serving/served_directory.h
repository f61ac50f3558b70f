#pragma once

#include <filesystem>
#include <functional>

#include "tally/core/io/atomic_directory.h"
#include "tally/core/io/directory_lock.h"
#include "tally/recsys/models/lisa_serving.h"
#include "tally/recsys/run/trained_model.h"
#include "tally/recsys/serving/recommender.h"

namespace tally::recsys {

/// The directory of a LISA model in the form that is served: model.safetensors, items.tsv, users.txt.gz where the run
/// kept them, compression.json, and a manifest that says how files of histories are read. It needs neither run nor
/// data.
class ServedDirectory {
 public:
  /// Throws ConfigError when something else of this name is there already, and IoError when another process writes it.
  explicit ServedDirectory(const std::filesystem::path& directory);

  /// Writes all but the report. `run`: where `trained` came from.
  void write(const LisaServing& model, const TrainedModel& trained, const RunDirectory& run);
  /// The model as it was written.
  LisaServing read_model() const;
  /// Writes compression.json and puts the directory in its place. Call it once, at last.
  void commit(const Json& report);

 private:
  DirectoryLock lock_;
  AtomicDirectory files_;
  Json manifest_;
};

/// Has the directory been written by a ServedDirectory?
bool is_served_directory(const std::filesystem::path& directory);
/// Throws IoError when it is damaged. Those of builds that wrote items.txt and titles.txt are read, too; they do not
/// say how often items were trained on.
Recommender open_served(const std::filesystem::path& directory);

}  // namespace tally::recsys
