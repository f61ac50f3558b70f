#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tally/recsys/config/config.h"
#include "tally/recsys/record/run_record.h"

namespace tally::recsys {

/// One setting of a study; every seed of the study makes a training of it.
struct StudyRun {
  std::string name;
  RunConfig config;
  std::string start_from{};  ///< the run, earlier in the study, whose weights of the same seed this one begins with

  /// The config with a seed, as it is trained into `directory`.
  RunConfig with_seed(std::int64_t seed, const std::filesystem::path& output) const;
};

/// A plot over the runs: a figure against a key of the config.
struct StudyPlot {
  std::string x = {};       ///< a key, dotted or bare; "length" for MAX_ITEM_LIST_LENGTH, or "run"
  std::string y = {};       ///< a metric, or one of figure_names()
  std::string series = {};  ///< a key, or "run"; empty: one series
  std::string title = {};
  bool log_x = false, log_y = false;
};

/// A study: configs times seeds, and what is made of their results. docs/studies.md describes the file.
struct Study {
  std::string name;
  std::vector<StudyRun> runs;
  std::vector<std::int64_t> seeds;
  std::string compare_to;            ///< name of a run; empty: none
  std::vector<std::string> metrics;  ///< "HR@10", ...
  std::vector<StudyPlot> plots;
};

/// Reads a study file, strictly: every run's config is made and checked. Throws ConfigError.
Study read_study(const std::filesystem::path& path, const Tables& tables = standard());

/// Figures beside metrics that plots may show: "seconds_per_epoch" ("time"), "total_seconds", "peak_memory" ("memory"),
/// "parameters", "epochs", "best_epoch", "tokens_per_second", "sgemm_share".
const std::vector<std::string>& figure_names();
/// A figure by name, nothing when the run has none (yet). Metrics are those of the test part.
std::optional<double> figure_of(const RunRecord& record, const std::string& name);

/// The value that a run's config has at the key of a plot; text of the run's name for "run", of nothing for "".
Json key_value(const StudyRun& run, const std::string& key);

/// `<output>/<run>-seed<seed>`, where the training of that seed lies.
RunDirectory study_run_directory(const std::filesystem::path& output, const StudyRun& run, std::int64_t seed);

}  // namespace tally::recsys
