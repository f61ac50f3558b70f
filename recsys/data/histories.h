#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tally/recsys/data/delimited_reader.h"
#include "tally/recsys/data/id_map.h"
#include "tally/recsys/data/sequences.h"

namespace tally::recsys {

enum class UnknownItems {
  error,  ///< the first item that a model does not know ends the reading
  skip,   ///< such rows are left out, counted and named
};

/// How histories are read: as the data were that a model was trained on. What a file of histories need not have is used
/// where it has it: without the column of times a file is in order, without that of ratings none is too low.
struct HistoryOptions {
  DelimitedFormat format = {};          ///< of the training data; `read_histories` says when it is used
  std::string user_column = "user_id";  ///< or, when the file has none of this name, user_id
  std::string item_column = "item_id";  ///< or, when the file has none of this name, item_id
  UnknownItems unknown = UnknownItems::error;
  std::string rating_column = {};  ///< read for min_rating alone
  std::string order_column = {};   ///< "": the file is in order
  OrderOptions order = {};
  std::optional<double> min_rating = {};
  BadRows bad_rows = BadRows::error;
};

/// What users did, of whom a model need never have heard.
struct Histories {
  static constexpr std::size_t kMessagesKept = 10;

  IdMap users;          ///< in order of first appearance
  Sequences sequences;  ///< of each user, as indices of the model's items; with times where the file has them
  std::int64_t unknown_items = 0;
  std::vector<std::string> unknown_messages;  ///< of the first kMessagesKept
  ReadReport report;                          ///< what else was left out, by the rules of the training data
};

/// Reads rows of a user and an item, plain or gzip'd; "-" is standard input. The first line tells the form:
/// - split as the training data or as the file's name tells, it names the columns of users and items: a header;
/// - it has as many fields as the training data's columns, when these were given by name, or as the form without a
///   header that the file's name tells (.txt, .dat).
///
/// A user's rows need not stand together; they are ordered as the training data were, rows of items that are left out
/// in their places until then, so that a file that a model was trained on gives the histories it was trained on. A row
/// whose item is empty names a user without adding an event, so that a history may be empty. Other columns are passed
/// over. Throws IoError as read_interactions does, naming file, line and byte, and for an item that is not in `items`.
Histories read_histories(const std::filesystem::path& path, const IdMap& items, const HistoryOptions& options = {});

}  // namespace tally::recsys
