#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <unordered_map>

#include "tally/recsys/config/config.h"
#include "tally/recsys/data/delimited_reader.h"
#include "tally/recsys/data/filters.h"
#include "tally/recsys/data/histories.h"
#include "tally/recsys/data/split.h"

namespace tally::recsys {

/// The options that a config stands for. Throws ConfigError.
ReadOptions read_options(const DataConfig& config);
FilterOptions filter_options(const DataConfig& config);
/// How histories are read for a model that was trained on this data.
HistoryOptions history_options(const DataConfig& config);

/// What decides which events there are and in which order, for protocol lines: "events by timestamp, equal ones by
/// file_order, users with [5,inf) events (iterative)".
std::string data_rules(const DataConfig& config);

/// The data of a run: read, ordered, filtered, split, described.
struct RunData {
  std::unique_ptr<const Interactions> interactions;  ///< the split refers to it
  std::unique_ptr<const Split> split;
  ReadReport report;                                    ///< what the reader left out
  FilterReport filters;                                 ///< what the filters took out
  std::unordered_map<std::string, std::string> titles;  ///< by item id; empty without a titles file
  std::string hash;                                     ///< content_hash of the interactions

  /// An item for people: its title when there is one, else its id.
  std::string label(std::int32_t item) const;
};

/// Reads what the config names. Throws IoError (file, line) and ConfigError; a data set of which the filters leave
/// nothing is an error. Throws Stopped when it is asked to.
RunData read_run_data(const DataConfig& config, const StopRequested& stop_requested = {});
/// The same for a run: a data set without a test user is an error too.
RunData load_run_data(const DataConfig& config, const StopRequested& stop_requested = {});

/// Numbers users and items as these maps do, which hold the same ids in another order. Throws IoError for other ids.
void renumber(RunData& data, const DataConfig& config, const IdMap& users, const IdMap& items);

}  // namespace tally::recsys
