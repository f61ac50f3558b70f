#pragma once

#include <cstdint>
#include <vector>

#include "tally/recsys/evaluation/evaluate.h"
#include "tally/recsys/evaluation/top_k.h"
#include "tally/recsys/record/run_directory.h"
#include "tally/recsys/run/run_data.h"

namespace tally::recsys {

/// Writes the best items of every user's whole history as recommendations.tsv, and as samples.json a few users with
/// titles: of the tested users the shortest and the longest history and some between. With `histories` these come with
/// the end of their history. Returns the lists, by user.
std::vector<std::vector<ScoredItem>> write_recommendations(const RunDirectory& directory, const Ranker& ranker,
                                                           const RunData& data, const Evaluation& test,
                                                           const RecommendOptions& options, bool histories);

}  // namespace tally::recsys
