#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tally/recsys/evaluation/top_k.h"
#include "tools/recommender.h"

namespace tally::tools {

/// A title in one cell of a table: what keeps cells and rows apart cannot stand in it.
std::string in_one_cell(std::string text);
/// The head of a table of users' recommendations: user_id, item_id, score, rank, and title when there are titles.
std::string recommendation_head(const Recommender& from);
/// The rows of a user's list.
std::string recommendation_rows(const Recommender& from, std::string_view user,
                                const std::vector<recsys::ScoredItem>& list);

}  // namespace tally::tools
