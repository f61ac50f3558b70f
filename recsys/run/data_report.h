#pragma once

#include <string>

#include "tally/core/io/json.h"
#include "tally/recsys/data/statistics.h"
#include "tally/recsys/run/run_data.h"

namespace tally::recsys {

/// Everything there is to know of a data set before a model is trained on it: which one it is, how it was read and
/// filtered, its figures, and what the split leaves to be found.
struct DataReport {
  std::string path;
  std::string rules;           ///< order, ties, filters
  std::string content_sha256;  ///< content_hash
  std::string git_blob;        ///< git_blob_id: the name of a published file of `user item` lines
  ReadReport reading;
  FilterReport filters;
  Statistics statistics;
  std::string split;
  std::int64_t training_events = 0;
  std::int64_t validation_users = 0;
  std::int64_t test_users = 0;
  std::int64_t unreachable_targets = 0;  ///< test targets that never occur in training

  /// Lines for people, ending with a newline.
  std::string to_text() const;
  Json to_json() const;
};

DataReport describe(const DataConfig& config, const RunData& data);

}  // namespace tally::recsys
