#pragma once

#include <cstdint>
#include <vector>

#include "tally/recsys/models/elastic.h"

namespace tally::recsys {

/// How the experts of one layer are read by the last rows of histories, which are the rows that rank. Where experts are
/// retrieved, the first of a history is the one that scores highest, and so on.
struct LayerExpertUse {
  std::vector<double> shares;   ///< [k] of each expert in what a head reads: means over histories and heads
  double entropy = 0;           ///< of `shares`, over log k: 1 where all are read alike
  double entropy_of_reads = 0;  ///< of what one head of one history reads, over log k: the mean
  double cosine = 0;           ///< between two experts of a history: the mean over pairs and histories; 0 of one expert
  double cosine_gathered = 0;  ///< the same between what they gathered
};

/// How the rows of one memory, or of one table of codes, were chosen for these histories.
struct ChosenRows {
  std::int64_t rows = 0;  ///< to choose from
  double read = 0;        ///< share of them that were chosen at all
  double divergence = 0;  ///< of choices from uniform ones: nn::divergence_from_uniform
};

struct ExpertUse {
  std::int64_t histories = 0;
  std::vector<LayerExpertUse> layers;
  std::vector<ChosenRows> chosen;  ///< one, or one for each layer; none of static experts
};

/// Of histories as long as they are, which may be empty: those count for nothing. Throws ValueError for a model without
/// dispatcher attention, or without a history.
ExpertUse expert_use(const Elastic& model, const Sequences& histories);

}  // namespace tally::recsys
