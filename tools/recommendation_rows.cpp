#include "tools/recommendation_rows.h"

#include <fmt/format.h>

#include <algorithm>

namespace tally::tools {
namespace {

/// What keeps a table apart cannot stand in it.
std::string in_one_cell(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\t' || c == '\n' || c == '\r'; }, ' ');
  return text;
}

}  // namespace

std::string recommendation_head(const recsys::RunData& data) {
  return data.titles.empty() ? "user_id\titem_id\tscore\trank\n" : "user_id\titem_id\tscore\trank\ttitle\n";
}

std::string recommendation_rows(const recsys::RunData& data, std::string_view user,
                                const std::vector<recsys::ScoredItem>& list) {
  std::string text;
  for (std::size_t r = 0; r < list.size(); ++r) {
    text += fmt::format("{}\t{}\t{:g}\t{}", user, data.interactions->items.name(list[r].item), list[r].score, r + 1);
    if (!data.titles.empty()) text += '\t' + in_one_cell(data.label(list[r].item));
    text += '\n';
  }
  return text;
}

}  // namespace tally::tools
