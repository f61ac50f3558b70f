#include "tools/recommendation_rows.h"

#include <fmt/format.h>

namespace tally::tools {

std::string recommendation_head(const recsys::Recommender& from) {
  return from.items.titles.empty() ? "user_id\titem_id\tscore\trank\tranker\n"
                                   : "user_id\titem_id\tscore\trank\ttitle\tranker\n";
}

const char* ranker_of(const recsys::Recommendation& list) { return list.popular ? "popularity" : "model"; }

std::string recommendation_rows(const recsys::Recommender& from, std::string_view user,
                                const recsys::Recommendation& list) {
  std::string text;
  for (std::size_t r = 0; r < list.items.size(); ++r) {
    const auto& [item, score] = list.items[r];
    text += fmt::format("{}\t{}\t{:g}\t{}\t", user, from.items.ids.name(item), score, r + 1);
    if (!from.items.titles.empty()) text += recsys::in_one_cell(from.items.label(item)) + '\t';
    text.append(ranker_of(list)).append(1, '\n');
  }
  return text;
}

}  // namespace tally::tools
