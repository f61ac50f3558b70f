#include "tally/recsys/training/negatives.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <set>

namespace negatives_test {

using namespace tally;
using namespace tally::recsys;
using Catch::Matchers::Contains;
using Distribution = NegativeSampling::Distribution;
using Scope = NegativeSampling::Scope;
using Exclude = NegativeSampling::Exclude;

namespace {

constexpr std::int64_t kItems = 40;

/// Users of 2 to 21 items; item i is the more frequent the smaller it is.
std::vector<std::vector<std::int32_t>> skewed(int users) {
  std::vector<std::vector<std::int32_t>> all;
  for (int u = 0; u < users; ++u) {
    const RngKey key = RngKey{11, 0}.fold_in(static_cast<std::uint64_t>(u));
    std::vector<std::int32_t> items;
    for (std::uint64_t i = 0; i < 2 + static_cast<std::uint64_t>(u) % 20; ++i) {
      const auto high = uniform_below(key, 0, i, 30);
      items.push_back(static_cast<std::int32_t>(uniform_below(key, 1, i, high + 1)));
    }
    all.push_back(items);
  }
  return all;
}

std::vector<std::span<const std::int32_t>> spans(const std::vector<std::vector<std::int32_t>>& lists) {
  return {lists.begin(), lists.end()};
}

/// Probability of each item by definition.
std::vector<double> probabilities(const NegativeSampling& sampling,
                                  const std::vector<std::vector<std::int32_t>>& data) {
  std::vector<double> p(kItems, sampling.distribution == Distribution::uniform ? 1.0 : 0.0);
  if (sampling.distribution == Distribution::popularity) {
    for (const auto& list : data) {
      for (const std::int32_t item : list) p[static_cast<std::size_t>(item)] += 1;
    }
    for (double& each : p) each = each > 0 ? std::pow(each, sampling.alpha) : 0;
  }
  double sum = 0;
  for (const double each : p) sum += each;
  for (double& each : p) each /= sum;
  return p;
}

/// Chi-square of counts against expectations, in standard deviations above its mean.
double excess(const std::vector<double>& counts, const std::vector<double>& expected) {
  double chi = 0, degrees = -1;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (expected[i] == 0) {
      CHECK(counts[i] == 0);
      continue;
    }
    chi += std::pow(counts[i] - expected[i], 2) / expected[i];
    ++degrees;
  }
  return (chi - degrees) / std::sqrt(2 * degrees);
}

TrainingBatch one_batch(const std::vector<std::vector<std::int32_t>>& data, std::int64_t shard_tokens,
                        TrainingSamples samples = TrainingSamples::shifted) {
  const TrainingBatches batches(
      spans(data), {.batch_size = 1000, .window = 50, .shard_tokens = shard_tokens, .samples = samples}, RngKey{3, 0});
  return batches.batch(0, 0);
}

}  // namespace

TEST_CASE("an alias table stands for its weights exactly", "[negatives]") {
  const std::vector<double> weights{0.5, 0, 3, 1, 0, 1.5, 2};
  const AliasTable table(weights);
  // A regular grid of word pairs: the measure of each index to the grid's resolution.
  std::vector<double> measure(weights.size());
  constexpr int kColumns = 700, kRows = 1024;
  for (int i = 0; i < kColumns; ++i) {
    for (int j = 0; j < kRows; ++j) {
      const auto first = static_cast<std::uint32_t>((i + 0.5) / kColumns * 0x1p32);
      const auto second = static_cast<std::uint32_t>((j + 0.5) / kRows * 0x1p32);
      measure[static_cast<std::size_t>(table.at(first, second))] += 1.0 / (kColumns * kRows);
    }
  }
  for (std::size_t i = 0; i < weights.size(); ++i) CHECK(measure[i] == Approx(weights[i] / 8).margin(1e-3));
  CHECK(measure[1] == 0);
  CHECK(measure[4] == 0);
  CHECK_THROWS_AS(AliasTable(std::vector<double>{0, 0}), ValueError);
  CHECK_THROWS_AS(AliasTable(std::vector<double>{1, -1}), ValueError);
}

TEST_CASE("negatives follow their distribution and honour what is excluded", "[negatives]") {
  const auto data = skewed(60);
  const TrainingBatch batch = one_batch(data, 1 << 20);
  const TrainingShard& shard = batch.shards[0];
  for (const Scope scope : {Scope::position, Scope::sequence}) {
    for (const Distribution distribution : {Distribution::uniform, Distribution::popularity}) {
      for (const double alpha : {1.0, 0.5}) {
        for (const Exclude exclude : {Exclude::none, Exclude::target, Exclude::history}) {
          if (exclude == Exclude::target && scope == Scope::sequence) continue;
          const NegativeSampling sampling{
              .count = 200, .distribution = distribution, .alpha = alpha, .scope = scope, .exclude = exclude};
          const NegativeSampler sampler(sampling, spans(data), kItems);
          const auto p = probabilities(sampling, data);
          for (std::size_t i = 0; i < p.size(); ++i) {
            CHECK(std::exp(sampler.log_probabilities().data<double>()[i]) == Approx(p[i]).margin(1e-12));
          }
          const Tensor drawn = sampler.draw(shard, RngKey{5, 6});
          const auto* id = drawn.data<std::int32_t>();
          std::vector<double> counts(kItems), expected(kItems);
          for (std::int64_t s = 0; s < shard.inputs.count(); ++s) {
            const auto& user = data[static_cast<std::size_t>(shard.inputs.users.data<std::int32_t>()[s])];
            const std::set<std::int32_t> seen(user.begin(), user.end());
            const bool each = scope == Scope::position;
            const std::int64_t begin = each ? shard.inputs.offsets.at(s) : s;
            const std::int64_t end = each ? shard.inputs.offsets.at(s + 1) : s + 1;
            for (std::int64_t row = begin; row < end; ++row) {
              const auto is_excluded = [&](std::int32_t item) {
                if (exclude == Exclude::history) return seen.contains(item);
                return exclude == Exclude::target && item == shard.targets.data<std::int32_t>()[row];
              };
              double left = 0;
              for (std::int32_t i = 0; i < kItems; ++i) left += is_excluded(i) ? 0 : p[static_cast<std::size_t>(i)];
              for (std::int32_t i = 0; i < kItems; ++i) {
                const auto at = static_cast<std::size_t>(i);
                expected[at] += is_excluded(i) ? 0 : 200 * p[at] / left;
              }
              bool honoured = true;
              for (std::int64_t k = 0; k < 200; ++k) {
                honoured = honoured && !is_excluded(id[row * 200 + k]);
                counts[static_cast<std::size_t>(id[row * 200 + k])] += 1;
              }
              CHECK(honoured);
            }
          }
          INFO("scope " << static_cast<int>(scope) << " distribution " << static_cast<int>(distribution) << " alpha "
                        << alpha << " exclude " << static_cast<int>(exclude));
          CHECK(excess(counts, expected) < 4);
        }
      }
    }
  }
}

TEST_CASE("negatives do not depend on the cut into shards", "[negatives]") {
  const auto data = skewed(60);
  for (const TrainingSamples samples : {TrainingSamples::shifted, TrainingSamples::prefix}) {
    for (const Scope scope : {Scope::position, Scope::sequence, Scope::batch}) {
      const NegativeSampling sampling{
          .count = 7, .scope = scope, .exclude = scope == Scope::batch ? Exclude::none : Exclude::history};
      const NegativeSampler sampler(sampling, spans(data), kItems);
      std::vector<std::vector<double>> all;
      for (const std::int64_t budget : {30, 200, 1 << 20}) {
        std::vector<double> drawn;
        for (const TrainingShard& shard : one_batch(data, budget, samples).shards) {
          const auto part = sampler.draw(shard, RngKey{5, 6}).to_doubles();
          if (scope == Scope::batch) drawn.clear();
          drawn.insert(drawn.end(), part.begin(), part.end());
        }
        all.push_back(drawn);
      }
      CHECK(all[0] == all[1]);
      CHECK(all[0] == all[2]);
      const auto shard = one_batch(data, 1 << 20, samples).shards[0];
      CHECK_FALSE(identical(sampler.draw(shard, RngKey{5, 6}), sampler.draw(shard, RngKey{5, 7})));
    }
  }
}

TEST_CASE("without replacement every negative is another item", "[negatives]") {
  auto data = skewed(60);
  data.push_back({25, 26, 27, 28, 29});
  data.push_back({});  // who leaves five items to draw
  for (std::int32_t i = 0; i < kItems; ++i) {
    if (i < 25 || i >= 30) data.back().push_back(i);
  }
  const TrainingShard shard = one_batch(data, 1 << 20).shards[0];
  for (const Distribution distribution : {Distribution::uniform, Distribution::popularity}) {
    const NegativeSampling sampling{.count = 10,
                                    .distribution = distribution,
                                    .scope = Scope::sequence,
                                    .exclude = Exclude::history,
                                    .replacement = false};
    const NegativeSampler sampler(sampling, spans(data), kItems);
    const auto p = probabilities(sampling, data);
    std::vector<double> counts(kItems), expected(kItems);
    for (std::uint64_t step = 0; step < 50; ++step) {
      const Tensor drawn = sampler.draw(shard, RngKey{5, 6}.fold_in(step));
      for (std::int64_t s = 0; s < shard.inputs.count(); ++s) {
        const auto user = static_cast<std::size_t>(shard.inputs.users.data<std::int32_t>()[s]);
        const std::set<std::int32_t> seen(data[user].begin(), data[user].end());
        std::int64_t drawable = 0;
        double left = 0;
        for (std::int32_t i = 0; i < kItems; ++i) {
          if (seen.contains(i) || p[static_cast<std::size_t>(i)] == 0) continue;
          ++drawable;
          left += p[static_cast<std::size_t>(i)];
        }
        std::set<std::int32_t> different;
        const auto* row = drawn.data<std::int32_t>() + s * 10;
        for (int k = 0; k < 10; ++k) {
          if (row[k] >= 0) CHECK((different.insert(row[k]).second && !seen.contains(row[k])));
        }
        CHECK(static_cast<std::int64_t>(different.size()) == std::min<std::int64_t>(10, drawable));
        // The first of them is a draw from the distribution.
        counts[static_cast<std::size_t>(row[0])] += 1;
        for (std::int32_t i = 0; i < kItems; ++i) {
          const auto at = static_cast<std::size_t>(i);
          expected[at] += seen.contains(i) ? 0 : p[at] / left;
        }
      }
    }
    CHECK(excess(counts, expected) < 4);
  }
}

TEST_CASE("a user who has nearly everything still gets negatives", "[negatives]") {
  std::vector<std::vector<std::int32_t>> data(2);
  for (std::int32_t i = 0; i < kItems - 1; ++i) data[0].push_back(i);
  data[1] = {kItems - 1, 0};
  const TrainingShard shard = one_batch(data, 1 << 20).shards[0];
  for (const Distribution distribution : {Distribution::uniform, Distribution::popularity}) {
    const NegativeSampler sampler({.count = 30, .distribution = distribution, .alpha = 4, .exclude = Exclude::history},
                                  spans(data), kItems);
    const Tensor drawn = sampler.draw(shard, RngKey{5, 6});
    for (std::int64_t s = 0; s < 2; ++s) {
      if (shard.inputs.users.data<std::int32_t>()[s] != 0) continue;
      const auto* rows = drawn.data<std::int32_t>() + shard.inputs.offsets.at(s) * 30;
      for (std::int64_t i = 0; i < 30 * shard.inputs.offsets.length(s); ++i) CHECK(rows[i] == kItems - 1);
    }
  }
  data[0].push_back(kItems - 1);
  const NegativeSampler sampler({.exclude = Exclude::history}, spans(data), kItems);
  CHECK_THROWS_WITH(sampler.draw(one_batch(data, 1 << 20).shards[0], RngKey{5, 6}), Contains("user 0"));
}

TEST_CASE("negatives that cannot be are refused", "[negatives]") {
  const auto data = skewed(5);
  const auto make = [&](const NegativeSampling& sampling) { return NegativeSampler(sampling, spans(data), kItems); };
  CHECK_THROWS_WITH(make({.count = 0}), Contains("at least one negative"));
  CHECK_THROWS_WITH(make({.scope = Scope::batch, .exclude = Exclude::history}), Contains("many users"));
  CHECK_THROWS_WITH(make({.scope = Scope::sequence, .exclude = Exclude::target}), Contains("each position"));
  CHECK_THROWS_WITH(make({.replacement = false}), Contains("shared negatives"));
  CHECK_THROWS_WITH(make({.count = kItems + 1, .scope = Scope::batch, .replacement = false}),
                    Contains("at most the 40 items"));
}

}  // namespace negatives_test
