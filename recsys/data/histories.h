#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tally/recsys/data/delimited_rows.h"
#include "tally/recsys/data/id_map.h"
#include "tally/recsys/data/sequences.h"

namespace tally::recsys {

enum class UnknownItems {
  error,  ///< the first item that a model does not know ends the reading
  skip,   ///< such rows are left out, counted and named
};

struct HistoryOptions {
  DelimitedFormat format;
  std::string user_column = "user_id";  ///< or, when the file has none of this name, user_id
  std::string item_column = "item_id";  ///< or, when the file has none of this name, item_id
  UnknownItems unknown = UnknownItems::error;
};

/// What users did, of whom a model need never have heard.
struct Histories {
  static constexpr std::size_t kMessagesKept = 10;

  IdMap users;          ///< in order of first appearance
  Sequences sequences;  ///< of each user, as indices of the model's items
  std::int64_t unknown_items = 0;
  std::vector<std::string> unknown_messages;  ///< of the first kMessagesKept
};

/// Reads rows of a user and an item, plain or gzip'd; "-" is standard input. A user's rows are in order, oldest first,
/// and need not stand together. A row whose item is empty names a user without adding an event, so that a history may
/// be empty. Other columns are passed over. Throws IoError naming file, line and byte for malformed rows, an empty user
/// and an item that is not in `items`, and for a file without rows.
Histories read_histories(const std::filesystem::path& path, const IdMap& items, const HistoryOptions& options = {});

}  // namespace tally::recsys
