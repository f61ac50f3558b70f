#include "tally/recsys/data/histories.h"

#include <numeric>

namespace tally::recsys {

Histories read_histories(const std::filesystem::path& path, const IdMap& items, const HistoryOptions& options) {
  DelimitedRows rows(path, options.format);
  const std::size_t user_column = rows.column(rows.has_column(options.user_column) ? options.user_column : "user_id");
  const std::size_t item_column = rows.column(rows.has_column(options.item_column) ? options.item_column : "item_id");
  Histories result;
  std::vector<std::int32_t> event_users, event_items;
  bool any = false;
  while (rows.next()) {
    any = true;
    const std::string_view user = rows.field(user_column);
    const std::string_view id = rows.field(item_column);
    if (user.empty()) rows.refuse(user_column, "needs a ", rows.columns()[user_column], "; got an empty field");
    const std::optional<std::int32_t> item = items.find(id);
    if (!id.empty() && !item) {
      try {
        rows.refuse(item_column, "needs an item that the model was trained with; got '", id, "'");
      } catch (const RowError& error) {
        if (options.unknown == UnknownItems::error) throw;
        ++result.unknown_items;
        if (result.unknown_messages.size() < Histories::kMessagesKept)
          result.unknown_messages.emplace_back(error.what());
      }
    }
    const std::int32_t index = result.users.add(user);
    if (!item) continue;
    event_users.push_back(index);
    event_items.push_back(*item);
  }
  check<IoError>(any, rows.name(), "has no rows");

  std::vector<std::int64_t> lengths(static_cast<std::size_t>(result.users.size()), 0);
  for (const std::int32_t user : event_users) ++lengths[static_cast<std::size_t>(user)];
  result.sequences.offsets = Offsets::from_lengths(lengths);
  result.sequences.items = Tensor({result.sequences.offsets.total()}, DType::i32);
  std::int32_t* const out = result.sequences.items.mutable_data<std::int32_t>();
  std::vector<std::int64_t> next(lengths.size(), 0);
  std::exclusive_scan(lengths.begin(), lengths.end(), next.begin(), std::int64_t{0});
  for (std::size_t i = 0; i < event_users.size(); ++i)
    out[next[static_cast<std::size_t>(event_users[i])]++] = event_items[i];
  return result;
}

}  // namespace tally::recsys
