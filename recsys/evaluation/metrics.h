#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tally/core/words.h"

namespace tally::recsys {

/// Which position a target gets among items of exactly its score.
enum class RankTies {
  mean,         ///< the expectation over random orders of the tied items
  pessimistic,  ///< behind all of them
  optimistic,   ///< before all of them
};
constexpr auto words(RankTies) {
  using W = Word<RankTies>;
  return std::array{W{"mean", RankTies::mean}, W{"pessimistic", RankTies::pessimistic},
                    W{"optimistic", RankTies::optimistic}};
}

/// Positions (from 1) that a target may take: `best` before the candidates of its score, `worst` behind them. A target
/// that is no candidate (seen before and filtered, or outside the candidate set) has none: {0, 0}, and never hits.
struct TargetRank {
  std::int64_t best = 0;
  std::int64_t worst = 0;

  bool is_candidate() const { return best > 0; }
  bool is_tied() const { return worst > best; }
  /// 1 + #greater + #equal / 2; infinity for a target that is no candidate.
  double expected() const;

  friend bool operator==(const TargetRank&, const TargetRank&) = default;
};

/// Metrics at a cut-off, means over users. With one target per user recall@k equals the hit rate.
struct Metrics {
  std::int64_t k = 0;
  double hit_rate = 0;  ///< 1 when the position is at most k
  double ndcg = 0;      ///< 1 / log2(position + 1) when it is, else 0
  double mrr = 0;       ///< 1 / position when it is, else 0
};

/// Metrics of one rank. With RankTies::mean exactly the average over the positions best ... worst.
Metrics metrics_of(const TargetRank& rank, std::int64_t k, RankTies ties);
/// Means over ranks; zeros when there are none. Throws ValueError for k below 1.
Metrics mean_metrics(std::span<const TargetRank> ranks, std::int64_t k, RankTies ties);

/// Where `target` stands among the candidates: all items, less those whose `candidates` byte is 0 (an empty span: all
/// are candidates) and less the `excluded` ones (in any order, repeats allowed). Throws ValueError naming the item when
/// a score is not finite, candidate or not.
TargetRank rank_of(std::span<const float> scores, std::int32_t target, std::span<const std::int32_t> excluded,
                   std::span<const std::uint8_t> candidates = {});

/// Where `target` stands among itself and drawn `negatives` (repeats count each time; the target's own item among them
/// is a tie). Throws as rank_of does.
TargetRank rank_among(std::span<const float> scores, std::int32_t target, std::span<const std::int32_t> negatives);

/// Index of the first score that is not finite; scores.size() when all are.
std::size_t first_non_finite(std::span<const float> scores);
/// Throws ValueError naming the first item whose score is not finite.
void check_finite(std::span<const float> scores);

}  // namespace tally::recsys
