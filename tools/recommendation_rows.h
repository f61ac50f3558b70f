#pragma once

#include <string>
#include <string_view>

#include "tally/recsys/serving/recommender.h"

namespace tally::tools {

/// The head of a table of users' recommendations: user_id, item_id, score, rank, title when there are titles, and
/// ranker: `model`, or `popularity` for a user without a history.
std::string recommendation_head(const recsys::Recommender& from);
/// The rows of a user's list.
std::string recommendation_rows(const recsys::Recommender& from, std::string_view user,
                                const recsys::Recommendation& list);
/// Who made a list, as the column ranker says.
const char* ranker_of(const recsys::Recommendation& list);

}  // namespace tally::tools
