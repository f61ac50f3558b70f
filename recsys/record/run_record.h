#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tally/core/io/json.h"
#include "tally/recsys/evaluation/metrics.h"
#include "tally/recsys/record/run_directory.h"

namespace tally::recsys {

/// Where one user's test item came out.
struct UserRank {
  std::string user;
  TargetRank rank;
  std::int64_t history_length = -1;  ///< events before the item; -1 when the run did not record it
};

/// What a run costs.
struct RunFigures {
  std::optional<double> parameters;
  std::optional<double> epochs;
  std::optional<double> best_epoch;
  std::optional<double> seconds_per_epoch;  ///< median of training, without validation
  std::optional<double> total_seconds;      ///< of training and validation, as logged
  std::optional<double> tokens_per_second;  ///< median
  std::optional<double> peak_memory;        ///< of tensors, in bytes
  std::optional<double> sgemm_share;        ///< median
};

/// What a run directory holds, as it was written: of a run that is not finished (or of an older version) parts are
/// missing. Neither data nor weights are read.
struct RunRecord {
  RunDirectory directory;
  Json config;  ///< of every JSON file that is not there: null
  Json environment, data, training, test, samples;
  std::vector<Json> epochs, validations;  ///< events of metrics.jsonl, in order
  std::vector<UserRank> ranks;            ///< empty until the run is finished

  bool is_finished() const { return !test.is(Json::Kind::null); }
  /// Of the test part: the baselines, and behind them the model when the run is finished.
  std::vector<Json> evaluations() const;
  /// The model's evaluation on the test part; null until the run is finished.
  Json result() const;
  RunFigures figures() const;
};

/// Throws IoError when the directory is no run, or naming file and line of what is malformed in it.
RunRecord read_run_record(const RunDirectory& directory);

/// A number of a JSON object; nothing when it is absent, or no finite number.
std::optional<double> number_of(const Json& object, std::string_view name);

/// The metric ("NDCG@10", "HR@5", "Recall@5", "MRR@10") of one rank, under a rule for ties. Throws ConfigError for
/// another form.
double metric_of(const TargetRank& rank, const std::string& metric, RankTies ties);
/// The rule that a recorded config names.
RankTies rank_ties_of(const Json& config);
/// The name under which an evaluation's JSON has a metric: "HR@5" for "Recall@5".
std::string recorded_metric(const std::string& metric);

}  // namespace tally::recsys
