#include "tally/recsys/data/item_lists.h"

#include <algorithm>

#include "tally/recsys/data/event_fields.h"

namespace tally::recsys {
namespace {

constexpr const char* kUser = "user_id";
constexpr const char* kItem = "item_id";

/// The forms of such files, those with a header line first.
std::vector<DelimitedFormat> forms_of(const std::filesystem::path& path) {
  std::vector<DelimitedFormat> forms{{.separator = "\t", .quoted = false, .columns = {}},
                                     csv_format(),
                                     {.separator = ";", .quoted = true, .columns = {}},
                                     {.separator = "\t", .quoted = false, .columns = {kUser, kItem}}};
  const auto name = path.extension() == ".gz" ? path.stem() : path.filename();
  if (name.extension() == ".txt") forms.push_back({.separator = " ", .quoted = false, .columns = {kUser, kItem}});
  forms.push_back({.separator = "\t", .quoted = false, .columns = {kItem}});
  return forms;
}

}  // namespace

std::vector<std::int32_t> ItemLists::of(const std::string& user) const {
  std::vector<std::int32_t> list = of_all;
  const auto found = of_user.find(user);
  if (found != of_user.end()) list.insert(list.end(), found->second.begin(), found->second.end());
  return list;
}

ItemLists read_item_lists(const std::filesystem::path& path, const IdMap& items, const std::string& user_column,
                          const std::string& item_column, UnknownItems unknown) {
  const auto is_header = [&](const std::vector<std::string>& names) {
    return std::any_of(names.begin(), names.end(),
                       [&](const std::string& name) { return name == item_column || name == kItem; });
  };
  const std::vector<DelimitedFormat> forms = forms_of(path);
  DelimitedRows rows(path, forms, is_header);
  const std::size_t item = rows.column(rows.has_column(item_column) ? item_column : kItem);
  const std::string user_name = rows.has_column(user_column) ? user_column : kUser;
  const bool of_users = rows.has_column(user_name);
  const std::size_t user = of_users ? rows.column(user_name) : item;
  ItemLists lists;
  while (rows.next()) {
    const std::string_view id = read_id(rows, item);
    std::vector<std::int32_t>& list = of_users ? lists.of_user[std::string(read_id(rows, user))] : lists.of_all;
    if (const std::optional<std::int32_t> known = items.find(id)) {
      list.push_back(*known);
      continue;
    }
    try {
      rows.refuse(item, "needs an item that the model was trained with; got '", id, "'");
    } catch (const RowError& error) {
      if (unknown == UnknownItems::error) throw;
      if (lists.unknown_items++ < static_cast<std::int64_t>(Histories::kMessagesKept)) {
        lists.unknown_messages.emplace_back(error.what());
      }
    }
  }
  return lists;
}

}  // namespace tally::recsys
