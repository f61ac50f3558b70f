#pragma once

#include <filesystem>
#include <string>

#include "tally/core/io/json.h"
#include "tally/recsys/config/config.h"
#include "tally/recsys/evaluation/evaluate.h"

namespace tally::recsys {

/// Where the files of a run lie.
struct RunDirectory {
  std::filesystem::path path;

  std::filesystem::path config() const { return path / "config.resolved.json"; }
  std::filesystem::path environment() const { return path / "environment.json"; }
  std::filesystem::path data() const { return path / "data.json"; }
  std::filesystem::path items() const { return path / "items.tsv"; }     ///< in the order of the weights
  std::filesystem::path users() const { return path / "users.txt.gz"; }  ///< in the order of training
  std::filesystem::path training() const { return path / "training.json"; }
  std::filesystem::path metrics() const { return path / "metrics.jsonl"; }
  std::filesystem::path last_checkpoint() const { return path / "checkpoints" / "last"; }
  std::filesystem::path best_weights() const { return path / "checkpoints" / "best"; }
  std::filesystem::path test_metrics() const { return path / "test_metrics.json"; }
  std::filesystem::path negatives() const { return path / "negatives.npy"; }  ///< of a sampled test
  std::filesystem::path ranks() const { return path / "ranks.tsv"; }
  std::filesystem::path recommendations() const { return path / "recommendations.tsv"; }
  std::filesystem::path samples() const { return path / "samples.json"; }
  std::filesystem::path report() const { return path / "report.html"; }
};

/// A new directory `<output>/<data>_<model>_<seed>_<UTC time>`, with a number behind it when the name is taken; of a
/// long name of the data the beginning.
RunDirectory create_run_directory(const RunConfig& config);

/// Makes the directory, and those above it, unless it is there. Throws IoError when it holds a run.
void make_run_directory(const RunDirectory& directory);

/// What a run records of its config: paths that hold wherever the run is resumed from.
Json recorded_config(RunConfig config);

/// Machine and build: CPU kernels, SIMD target, threads, compiler, version, denormals.
Json environment();

/// Metrics of evaluations as JSON, and the ranks of every user as a table, with the length of the history they come
/// from.
Json to_json(const Evaluation& evaluation);
void write_ranks(const std::filesystem::path& path, const Split& split, const Evaluation& evaluation);

}  // namespace tally::recsys
