#include "tally/recsys/data/delimited_reader.h"

#include <fmt/format.h>

#include "tally/recsys/data/event_fields.h"

namespace tally::recsys {

namespace {

/// Positions of the columns that are read.
struct Columns {
  std::size_t user;
  std::size_t item;
  std::optional<std::size_t> rating;
  std::optional<std::size_t> order;

  Columns(const DelimitedRows& rows, const ReadOptions& options)
      : user(rows.column(options.user_column)), item(rows.column(options.item_column)) {
    if (!options.rating_column.empty()) rating = rows.column(options.rating_column);
    if (!options.order_column.empty()) order = rows.column(options.order_column);
  }
};

struct Reading {
  IdMap users;
  IdMap items;
  EventColumns events;
  std::string last_user;  // rows mostly come user by user, which saves a look-up
  std::int32_t last_user_index = -1;

  /// Takes over the current row; everything is checked before anything is kept.
  void add(const DelimitedRows& rows, const Columns& columns, std::optional<double> min_rating, ReadReport& report) {
    const std::string_view user = read_id(rows, columns.user);
    const std::string_view item = read_id(rows, columns.item);
    const double rating = columns.rating ? read_rating(rows, *columns.rating) : 0.0;
    const double time = columns.order ? read_time(rows, *columns.order) : 0.0;
    if (min_rating && rating < *min_rating) {
      ++report.below_min_rating;
      return;
    }
    if (last_user_index < 0 || user != last_user) {
      last_user = user;
      last_user_index = users.add(user);
    }
    events.users.push_back(last_user_index);
    events.items.push_back(items.add(item));
    if (columns.rating) events.ratings.push_back(static_cast<float>(rating));
    if (columns.order) events.times.push_back(time);
  }
};

}  // namespace

ReadOptions movielens_csv_options() {
  ReadOptions options;
  options.format = csv_format();
  options.user_column = "userId";
  options.item_column = "movieId";
  options.rating_column = "rating";
  options.order_column = "timestamp";
  return options;
}

std::string ReadReport::to_text() const {
  std::string text = fmt::format("rows {}\n", rows);
  if (below_min_rating > 0) text += fmt::format("left out: {} rows below the least rating\n", below_min_rating);
  if (duplicates > 0) text += fmt::format("left out: {} repeated events\n", duplicates);
  if (bad_rows > 0) text += fmt::format("left out: {} malformed rows\n", bad_rows);
  for (const std::string& message : bad_row_messages) text += "  " + message + '\n';
  const auto named = static_cast<std::int64_t>(bad_row_messages.size());
  if (bad_rows > named) text += fmt::format("  ... and {} more\n", bad_rows - named);
  return text;
}

Json ReadReport::to_json() const {
  return Json::object({{"rows", rows},
                       {"bad_rows", bad_rows},
                       {"bad_row_messages", Json(bad_row_messages)},
                       {"below_min_rating", below_min_rating},
                       {"duplicates", duplicates}});
}

void for_each_row(DelimitedRows& rows, BadRows bad_rows, ReadReport& report, const std::function<void()>& take) {
  for (bool more = true; more;) {
    const std::int64_t before = report.rows;
    try {
      more = rows.next();
      report.rows += more;
      if (more) take();
    } catch (const RowError& error) {
      if (bad_rows == BadRows::error) throw;
      report.rows = before + 1;
      ++report.bad_rows;
      if (report.bad_row_messages.size() < ReadReport::kMessagesKept) {
        report.bad_row_messages.emplace_back(error.what());
      }
    }
  }
  check<IoError>(report.rows > 0, rows.name(), "has no rows");
}

Interactions read_interactions(const std::filesystem::path& path, const ReadOptions& options, ReadReport* report) {
  check<ValueError>(!options.min_rating || !options.rating_column.empty(), "read_interactions",
                    "needs a rating column to apply a least rating");
  DelimitedRows rows(path, options.format, options.stop_requested);
  const Columns columns(rows, options);
  ReadReport counted;
  Reading reading;
  for_each_row(rows, options.bad_rows, counted, [&] {
    constexpr std::int64_t kRowsBetween = 4096;
    if (counted.rows % kRowsBetween == 0) check_stop(options.stop_requested, rows.name());
    reading.add(rows, columns, options.min_rating, counted);
  });
  const auto taken = static_cast<std::int64_t>(reading.events.users.size());
  check<IoError>(taken > 0, rows.name(), "has no rows left: ", counted.bad_rows, " are malformed and ",
                 counted.below_min_rating, " below the least rating");
  Interactions data =
      group_by_user(std::move(reading.users), std::move(reading.items), std::move(reading.events), options.order);
  counted.duplicates = taken - data.size();
  if (report != nullptr) *report = std::move(counted);
  return data;
}

}  // namespace tally::recsys
