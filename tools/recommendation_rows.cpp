#include "tools/recommendation_rows.h"

#include <fmt/format.h>

#include <algorithm>

namespace tally::tools {

std::string in_one_cell(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\t' || c == '\n' || c == '\r'; }, ' ');
  return text;
}

std::string recommendation_head(const Recommender& from) {
  return from.titles.empty() ? "user_id\titem_id\tscore\trank\n" : "user_id\titem_id\tscore\trank\ttitle\n";
}

std::string recommendation_rows(const Recommender& from, std::string_view user,
                                const std::vector<recsys::ScoredItem>& list) {
  std::string text;
  for (std::size_t r = 0; r < list.size(); ++r) {
    text += fmt::format("{}\t{}\t{:g}\t{}", user, from.items.name(list[r].item), list[r].score, r + 1);
    if (!from.titles.empty()) text += '\t' + in_one_cell(from.label(list[r].item));
    text += '\n';
  }
  return text;
}

}  // namespace tally::tools
