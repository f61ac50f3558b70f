#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tally/recsys/evaluation/evaluate.h"
#include "tally/recsys/evaluation/ranker.h"

namespace tally::recsys {

struct ScoredItem {
  std::int32_t item;
  float score;

  friend bool operator==(const ScoredItem&, const ScoredItem&) = default;
};

/// The k best items, best first, equal scores by the lower index; fewer when fewer are left. `excluded` items (any
/// order, repeats allowed) and items whose `candidates` byte is 0 (empty: all are candidates) are left out. Exact.
/// Throws ValueError for k below 1, or naming the item when a score is not finite.
std::vector<ScoredItem> top_k(std::span<const float> scores, std::int64_t k,
                              std::span<const std::int32_t> excluded = {},
                              std::span<const std::uint8_t> candidates = {});

struct RecommendOptions {
  std::int64_t k = 10;
  SeenFilter seen = SeenFilter::full;             ///< full: a history's own items are left out
  std::span<const std::uint8_t> candidates = {};  ///< [items] 0 for those left out; empty: all are candidates
  std::span<const std::vector<std::int32_t>> left_out = {};  ///< further items, of each history; empty: none
  StopRequested stop_requested = {};                         ///< asked before each block of users
};

/// top_k of every history, scored in blocks of `users_per_block`. Results do not depend on threads. Throws ShapeError
/// for a candidate byte or list too many or too few, and Stopped.
std::vector<std::vector<ScoredItem>> recommend(const Ranker& ranker, const Sequences& histories,
                                               const RecommendOptions& options = {});

}  // namespace tally::recsys
