#include "tally/recsys/data/histories.h"

#include <algorithm>
#include <array>

#include "tally/recsys/data/event_fields.h"
#include "tally/recsys/data/file_forms.h"

namespace tally::recsys {
namespace {

using Names = std::vector<std::string>;

bool contains(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// The name under which a file has a column: the training data's, or the usual one.
std::string_view name_in(const Names& names, std::string_view written, std::string_view usual) {
  return contains(names, written) ? written : usual;
}

DelimitedRows open_rows(const std::filesystem::path& path, const HistoryOptions& options) {
  const FileForm usual = file_form_of(path);
  const std::array<const DelimitedFormat*, 2> formats{&options.format, &usual.format};
  std::vector<DelimitedFormat> forms;
  forms.reserve(2 * formats.size());
  for (const DelimitedFormat* format : formats) forms.push_back({format->separator, format->quoted, {}});
  for (const DelimitedFormat* format : formats) {
    if (!format->columns.empty()) forms.push_back(*format);
  }
  return DelimitedRows(path, forms, [&](const Names& names) {
    return contains(names, name_in(names, options.user_column, "user_id")) &&
           contains(names, name_in(names, options.item_column, "item_id"));
  });
}

struct HistoryReading {
  HistoryReading(const DelimitedRows& read, const IdMap& known, const HistoryOptions& wanted)
      : rows(read),
        options(wanted),
        user_column(rows.column(name_in(rows.columns(), options.user_column, "user_id"))),
        item_column(rows.column(name_in(rows.columns(), options.item_column, "item_id"))),
        known_items(known.size()),
        items(known) {
    if (options.min_rating && rows.has_column(options.rating_column)) rating = rows.column(options.rating_column);
    if (rows.has_column(options.order_column)) order = rows.column(options.order_column);
  }

  /// Takes over the current row; everything is checked before anything is kept.
  void add(Histories& result) {
    const std::string_view user = read_id(rows, user_column);
    if (rows.field(item_column).empty()) {
      result.users.add(user);
      return;
    }
    const std::string_view item = read_id(rows, item_column);
    const double time = order ? read_time(rows, *order) : 0.0;
    if (rating && read_rating(rows, *rating) < *options.min_rating) {
      ++result.report.below_min_rating;
      return;
    }
    const auto index = items.find(item);
    if (!index || *index >= known_items) note_unknown(item, result);
    events.users.push_back(result.users.add(user));
    events.items.push_back(items.add(item));
    if (order) events.times.push_back(time);
  }

  void note_unknown(std::string_view item, Histories& result) const {
    try {
      rows.refuse(item_column, "needs an item that the model was trained with; got '", item, "'");
    } catch (const RowError& error) {
      // No malformed row, which a rule of the training data might skip.
      if (options.unknown == UnknownItems::error) throw IoError(error.what());
      ++result.unknown_items;
      if (result.unknown_messages.size() < Histories::kMessagesKept) result.unknown_messages.emplace_back(error.what());
    }
  }

  const DelimitedRows& rows;
  const HistoryOptions& options;
  std::size_t user_column, item_column;
  std::optional<std::size_t> rating, order;
  std::int64_t known_items;
  IdMap items;  // those that are not known stand behind the others
  EventColumns events;
};

}  // namespace

Histories read_histories(const std::filesystem::path& path, const IdMap& items, const HistoryOptions& options) {
  DelimitedRows rows = open_rows(path, options);
  Histories result;
  HistoryReading reading(rows, items, options);
  for_each_row(rows, options.bad_rows, result.report, [&] { reading.add(result); });
  check<IoError>(result.users.size() > 0, rows.name(), "has no rows left: ", result.report.bad_rows,
                 " are malformed and ", result.report.below_min_rating, " below the least rating");

  const auto taken = static_cast<std::int64_t>(reading.events.users.size());
  Interactions data =
      group_by_user(std::move(result.users), std::move(reading.items), std::move(reading.events), options.order);
  result.report.duplicates = taken - data.size();
  std::vector<std::vector<std::int32_t>> histories(static_cast<std::size_t>(data.num_users()));
  std::vector<std::vector<double>> times(reading.order ? histories.size() : 0);
  for (std::int64_t user = 0; user < data.num_users(); ++user) {
    for (std::int64_t row = data.begin_of(user); row < data.begin_of(user + 1); ++row) {
      const std::int32_t item = data.events[static_cast<std::size_t>(row)];
      if (item >= items.size()) continue;
      histories[static_cast<std::size_t>(user)].push_back(item);
      if (reading.order) times[static_cast<std::size_t>(user)].push_back(data.times[static_cast<std::size_t>(row)]);
    }
  }
  const std::vector<std::span<const std::int32_t>> events(histories.begin(), histories.end());
  const std::vector<std::span<const double>> moments(times.begin(), times.end());
  result.sequences = pack(events, moments);
  result.users = std::move(data.users);
  return result;
}

}  // namespace tally::recsys
