#include "tally/recsys/evaluation/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tally/core/error.h"

namespace tally::recsys {

double TargetRank::expected() const {
  if (!is_candidate()) return std::numeric_limits<double>::infinity();
  return static_cast<double>(best) + static_cast<double>(worst - best) / 2;
}

Metrics metrics_of(const TargetRank& rank, std::int64_t k, RankTies ties) {
  Metrics result{.k = k};
  if (!rank.is_candidate()) return result;
  const std::int64_t first = ties == RankTies::pessimistic ? rank.worst : rank.best;
  const std::int64_t last = ties == RankTies::optimistic ? rank.best : rank.worst;
  for (std::int64_t position = first; position <= std::min(last, k); ++position) {
    const auto p = static_cast<double>(position);
    result.hit_rate += 1;
    result.ndcg += 1 / std::log2(p + 1);
    result.mrr += 1 / p;
  }
  const auto positions = static_cast<double>(last - first + 1);
  result.hit_rate /= positions;
  result.ndcg /= positions;
  result.mrr /= positions;
  return result;
}

Metrics mean_metrics(std::span<const TargetRank> ranks, std::int64_t k, RankTies ties) {
  check<ValueError>(k >= 1, "metrics", "need a cut-off of at least 1; got ", k);
  Metrics result{.k = k};
  if (ranks.empty()) return result;
  for (const TargetRank& rank : ranks) {
    const Metrics one = metrics_of(rank, k, ties);
    result.hit_rate += one.hit_rate;
    result.ndcg += one.ndcg;
    result.mrr += one.mrr;
  }
  const auto n = static_cast<double>(ranks.size());
  result.hit_rate /= n;
  result.ndcg /= n;
  result.mrr /= n;
  return result;
}

std::size_t first_non_finite(std::span<const float> scores) {
  std::int32_t all_finite = 1;  // an integer and no early exit, so that the loop vectorises
  for (const float score : scores) all_finite &= std::fabs(score) <= std::numeric_limits<float>::max();
  if (all_finite) return scores.size();
  const auto first = std::find_if(scores.begin(), scores.end(), [](float score) { return !std::isfinite(score); });
  return static_cast<std::size_t>(first - scores.begin());
}

void check_finite(std::span<const float> scores) {
  const std::size_t bad = first_non_finite(scores);
  if (bad < scores.size()) fail<ValueError>("scores", "must be finite; got ", scores[bad], " for item index ", bad);
}

TargetRank rank_of(std::span<const float> scores, std::int32_t target, std::span<const std::int32_t> excluded,
                   std::span<const std::uint8_t> candidates) {
  const auto n = static_cast<std::int64_t>(scores.size());
  check<IndexError>(target >= 0 && target < n, "rank_of", "needs a target in [0, ", n, "); got ", target);
  check<ShapeError>(candidates.empty() || candidates.size() == scores.size(), "rank_of",
                    "needs a candidate byte for each of ", n, " items; got ", candidates.size());
  check_finite(scores);
  const auto is_candidate = [&](std::int32_t item) {
    return candidates.empty() || candidates[static_cast<std::size_t>(item)] != 0;
  };
  if (!is_candidate(target) || std::find(excluded.begin(), excluded.end(), target) != excluded.end()) return {};

  const float target_score = scores[static_cast<std::size_t>(target)];
  std::int32_t greater = 0;
  std::int32_t equal = 0;
  if (candidates.empty()) {
    for (const float score : scores) {
      greater += score > target_score;
      equal += score == target_score;
    }
  } else {
    for (std::size_t i = 0; i < scores.size(); ++i) {
      const std::int32_t counts = candidates[i] != 0;
      greater += counts & static_cast<std::int32_t>(scores[i] > target_score);
      equal += counts & static_cast<std::int32_t>(scores[i] == target_score);
    }
  }
  // Histories are short beside the catalogue: what they take away is subtracted afterwards.
  std::vector<std::int32_t> distinct(excluded.begin(), excluded.end());
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  for (const std::int32_t item : distinct) {
    check<IndexError>(item >= 0 && item < n, "rank_of", "needs excluded items in [0, ", n, "); got ", item);
    if (!is_candidate(item)) continue;
    greater -= scores[static_cast<std::size_t>(item)] > target_score;
    equal -= scores[static_cast<std::size_t>(item)] == target_score;
  }
  return {std::int64_t{greater} + 1, std::int64_t{greater} + equal};
}

TargetRank rank_among(std::span<const float> scores, std::int32_t target, std::span<const std::int32_t> negatives) {
  const auto n = static_cast<std::int64_t>(scores.size());
  check<IndexError>(target >= 0 && target < n, "rank_among", "needs a target in [0, ", n, "); got ", target);
  check_finite(scores);
  const float target_score = scores[static_cast<std::size_t>(target)];
  std::int64_t greater = 0, equal = 0;
  for (const std::int32_t item : negatives) {
    check<IndexError>(item >= 0 && item < n, "rank_among", "needs negatives in [0, ", n, "); got ", item);
    greater += scores[static_cast<std::size_t>(item)] > target_score;
    equal += scores[static_cast<std::size_t>(item)] == target_score;
  }
  return {greater + 1, greater + 1 + equal};
}

}  // namespace tally::recsys
