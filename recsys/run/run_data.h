#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <unordered_map>

#include "tally/recsys/config.h"
#include "tally/recsys/data/delimited_reader.h"
#include "tally/recsys/data/split.h"

namespace tally::recsys {

/// The data of a run: read, ordered, split, described.
struct RunData {
  std::unique_ptr<const Interactions> interactions;  ///< the split refers to it
  std::unique_ptr<const Split> split;
  ReadReport report;                                    ///< what the reader left out
  std::unordered_map<std::string, std::string> titles;  ///< by item id; empty without a titles file
  std::string hash;                                     ///< content_hash of the interactions

  /// An item for people: its title when there is one, else its id.
  std::string label(std::int32_t item) const;
};

/// Reads what the config names. Throws IoError (file, line) and ConfigError; an empty data set is an error.
RunData load_run_data(const DataConfig& config);

}  // namespace tally::recsys
