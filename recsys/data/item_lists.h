#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

#include "tally/recsys/data/histories.h"
#include "tally/recsys/data/id_map.h"

namespace tally::recsys {

/// Items for all users, or for some of them: what may be recommended, or may not.
struct ItemLists {
  std::vector<std::int32_t> of_all;
  std::unordered_map<std::string, std::vector<std::int32_t>> of_user;
  std::int64_t unknown_items = 0;
  std::vector<std::string> unknown_messages;  ///< of the first Histories::kMessagesKept

  /// Those of a user and those of all.
  std::vector<std::int32_t> of(const std::string& user) const;
};

/// Reads a file of items, plain or gzip'd: with a header line that names the item's column (`item_column` or item_id)
/// and perhaps the user's (`user_column` or user_id), by tabs, commas or semicolons; or without one an id a line.
/// Throws IoError naming file and line for an empty id, and for an item that is not in `items` unless unknown ones are
/// skipped.
ItemLists read_item_lists(const std::filesystem::path& path, const IdMap& items, const std::string& user_column,
                          const std::string& item_column, UnknownItems unknown);

}  // namespace tally::recsys
