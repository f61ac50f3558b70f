#include "tally/recsys/evaluation/metrics.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numeric>

#include "tally/core/error.h"
#include "tally/core/random.h"

namespace tally::recsys::metrics_test {

using Catch::Matchers::Contains;

TEST_CASE("metrics worked out by hand", "[metrics]") {
  const Metrics third = metrics_of({3, 3}, 10, RankTies::mean);
  CHECK(third.hit_rate == 1);
  CHECK(third.ndcg == Approx(0.5));  // 1 / log2(4)
  CHECK(third.mrr == Approx(1.0 / 3));

  const Metrics eleventh = metrics_of({11, 11}, 10, RankTies::mean);
  CHECK(eleventh.hit_rate == 0);
  CHECK(eleventh.ndcg == 0);
  CHECK(eleventh.mrr == 0);

  // Positions 1 ... 4, of which two are within the cut-off.
  const Metrics tied = metrics_of({1, 4}, 2, RankTies::mean);
  CHECK(tied.hit_rate == Approx(0.5));
  CHECK(tied.ndcg == Approx((1 + 1 / std::log2(3.0)) / 4));
  CHECK(tied.mrr == Approx((1 + 0.5) / 4));
  CHECK(metrics_of({1, 4}, 2, RankTies::optimistic).ndcg == 1);
  CHECK(metrics_of({1, 4}, 2, RankTies::pessimistic).hit_rate == 0);

  const std::vector<TargetRank> ranks{{1, 1}, {3, 3}, {0, 0}, {20, 30}};
  const Metrics mean = mean_metrics(ranks, 10, RankTies::mean);
  CHECK(mean.hit_rate == Approx(0.5));
  CHECK(mean.ndcg == Approx(1.5 / 4));
  CHECK(mean.mrr == Approx((1 + 1.0 / 3) / 4));
  CHECK(mean_metrics({}, 10, RankTies::mean).ndcg == 0);
  CHECK_THROWS_AS(mean_metrics(ranks, 0, RankTies::mean), ValueError);
}

TEST_CASE("expected rank", "[metrics]") {
  CHECK(TargetRank{1, 1}.expected() == 1);
  CHECK(TargetRank{2, 5}.expected() == 3.5);
  CHECK(std::isinf(TargetRank{}.expected()));
}

TEST_CASE("rank among scores worked out by hand", "[metrics]") {
  const std::vector<float> scores{5, 3, 3, 1, 3};
  CHECK(rank_of(scores, 0, {}) == TargetRank{1, 1});
  CHECK(rank_of(scores, 1, {}) == TargetRank{2, 4});
  CHECK(rank_of(scores, 3, {}) == TargetRank{5, 5});
  const std::vector<std::int32_t> excluded{0, 4, 0};
  CHECK(rank_of(scores, 1, excluded) == TargetRank{1, 2});
  CHECK_FALSE(rank_of(scores, 4, excluded).is_candidate());
  const std::vector<std::uint8_t> candidates{1, 1, 0, 1, 1};
  CHECK(rank_of(scores, 1, {}, candidates) == TargetRank{2, 3});
  CHECK_FALSE(rank_of(scores, 2, {}, candidates).is_candidate());
  const std::vector<std::int32_t> not_a_candidate{2};
  CHECK(rank_of(scores, 1, not_a_candidate, candidates) == TargetRank{2, 3});
  CHECK_THROWS_AS(rank_of(scores, 5, {}), IndexError);
}

TEST_CASE("a score that is not finite is refused wherever it stands", "[metrics]") {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    for (std::size_t at = 0; at < 5; ++at) {
      std::vector<float> scores{5, 3, 3, 1, 3};
      scores[at] = bad;
      CHECK_THROWS_WITH(rank_of(scores, 1, {}), Contains("item index " + std::to_string(at)));
    }
  }
}

// Every order of the items that respects the scores is equally likely: the mean rule must give the average of the
// metric over all of them.
TEST_CASE("the mean rule is the average over all orders of tied items", "[metrics]") {
  const RngKey key{11};
  for (std::uint64_t trial = 0; trial < 40; ++trial) {
    std::vector<float> scores(7);
    for (std::uint64_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>(uniform_below(key, trial, i, 3));
    const auto target = static_cast<std::int32_t>(uniform_below(key, trial, 100, 7));
    const std::vector<std::int32_t> excluded{static_cast<std::int32_t>((target + 1) % 7),
                                             static_cast<std::int32_t>((target + 3) % 7)};
    std::vector<std::int32_t> order;
    for (std::int32_t i = 0; i < 7; ++i) {
      if (std::find(excluded.begin(), excluded.end(), i) == excluded.end()) order.push_back(i);
    }
    double orders = 0, hits = 0, ndcg = 0, mrr = 0;
    do {
      const bool sorted = std::is_sorted(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
        return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
      });
      if (!sorted) continue;
      ++orders;
      const auto position = std::find(order.begin(), order.end(), target) - order.begin() + 1;
      if (position > 3) continue;
      hits += 1;
      ndcg += 1 / std::log2(static_cast<double>(position) + 1);
      mrr += 1 / static_cast<double>(position);
    } while (std::next_permutation(order.begin(), order.end()));
    const Metrics metrics = metrics_of(rank_of(scores, target, excluded), 3, RankTies::mean);
    CHECK(metrics.hit_rate == Approx(hits / orders).margin(1e-12));
    CHECK(metrics.ndcg == Approx(ndcg / orders).margin(1e-12));
    CHECK(metrics.mrr == Approx(mrr / orders).margin(1e-12));
  }
}

}  // namespace tally::recsys::metrics_test
