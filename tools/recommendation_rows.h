#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tally/recsys/evaluation/top_k.h"
#include "tally/recsys/run/run_data.h"

namespace tally::tools {

/// The head of a table of users' recommendations: user_id, item_id, score, rank, and title when the data has titles.
std::string recommendation_head(const recsys::RunData& data);
/// The rows of a user's list.
std::string recommendation_rows(const recsys::RunData& data, std::string_view user,
                                const std::vector<recsys::ScoredItem>& list);

}  // namespace tally::tools
