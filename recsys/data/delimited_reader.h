#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tally/core/io/json.h"
#include "tally/core/stop.h"
#include "tally/core/words.h"
#include "tally/recsys/data/delimited_rows.h"
#include "tally/recsys/data/interactions.h"

namespace tally::recsys {

enum class BadRows {
  error,  ///< the first malformed row ends the reading
  skip,   ///< malformed rows are left out, counted and named in the report
};
constexpr auto words(BadRows) {
  using W = Word<BadRows>;
  return std::array{W{"error", BadRows::error}, W{"skip", BadRows::skip}};
}

struct ReadOptions {
  DelimitedFormat format = {};
  std::string user_column = "user_id";
  std::string item_column = "item_id";
  std::string rating_column = {};         ///< "": ratings are not read
  std::string order_column = {};          ///< numbers that order a user's events; "": the file is in order
  OrderOptions order = {};                ///< rules for equal times and for repeated items
  std::optional<double> min_rating = {};  ///< rows rated below, in double, are left out (and counted)
  BadRows bad_rows = BadRows::error;
  StopRequested stop_requested = {};  ///< asked now and then between rows, and while a pipe has none
};

/// Options for MovieLens' ratings.csv: userId,movieId,rating,timestamp; ordered by timestamp, ties in file order.
ReadOptions movielens_csv_options();

/// What a reading took and what it left out.
struct ReadReport {
  static constexpr std::size_t kMessagesKept = 10;

  std::int64_t rows = 0;  ///< rows of the file, the header not counted
  std::int64_t bad_rows = 0;
  std::vector<std::string> bad_row_messages;  ///< of the first kMessagesKept
  std::int64_t below_min_rating = 0;
  std::int64_t duplicates = 0;  ///< dropped by the rule for repeated items

  /// One line when nothing was left out; else a line for each reason and message. Ends with a newline.
  std::string to_text() const;
  Json to_json() const;
};

/// Calls take() on each row up to the end. A RowError of the row, or out of take(), ends the reading or is counted and
/// named, as `bad_rows` says. Throws IoError for a file without rows.
void for_each_row(DelimitedRows& rows, BadRows bad_rows, ReadReport& report, const std::function<void()>& take);

/// Reads interactions from delimited text, plain or gzip'd, streamed: memory is that of the result. Ids are any
/// non-empty strings, numbered in order of first appearance. Users and items of rows that are left out do not appear.
///
/// Throws IoError in one sentence naming file, line and byte: a missing column (listing those present), a row with too
/// few or too many fields, an id that is empty or unfit (`fault_of_id`), a rating or time that is not a finite number,
/// a time that a double does not tell apart, gzip data that ends early, a file without rows. Throws ValueError for
/// options that contradict each other, and Stopped.
Interactions read_interactions(const std::filesystem::path& path, const ReadOptions& options,
                               ReadReport* report = nullptr);

}  // namespace tally::recsys
