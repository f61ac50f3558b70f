#include "tally/recsys/models/expert_use.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <set>

#include "tally/nn/attention/dispatcher.h"
#include "tally/recsys/models/window.h"
#include "tests/recsys/recurrent_samples.h"

namespace expert_use_test {

using namespace tally;
using namespace tally::recsys;
using namespace tally::recsys::recurrent_samples;

namespace {

constexpr std::size_t kExperts = 6;

/// 70 histories, some of them empty, some longer than the window.
Sequences histories() {
  std::vector<std::vector<std::int32_t>> all;
  for (std::size_t i = 0; i < 70; ++i) {
    std::vector<std::int32_t> items = history(i % 9 == 4 ? 0 : 1 + i * 7 % 44);
    for (std::int32_t& item : items) item = static_cast<std::int32_t>((static_cast<std::size_t>(item) + i) % kItems);
    all.push_back(std::move(items));
  }
  return Sequences::from(all, kItems);
}

double cosine(const std::vector<double>& rows, std::size_t a, std::size_t b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < kWidth; ++i) {
    const double x = rows[a * kWidth + i], y = rows[b * kWidth + i];
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return ab / std::sqrt(aa * bb);
}

double mean_cosine(const std::vector<double>& rows) {
  double sum = 0;
  for (std::size_t a = 0; a < kExperts; ++a) {
    for (std::size_t b = 0; b < a; ++b) sum += cosine(rows, a, b);
  }
  return sum / (kExperts * (kExperts - 1) / 2.0);
}

double entropy(const double* shares) {
  double sum = 0;
  for (std::size_t e = 0; e < kExperts; ++e) sum -= shares[e] * std::log(shares[e]);
  return sum / std::log(double{kExperts});
}

}  // namespace

TEST_CASE("how experts are read, history by history", "[expert_use]") {
  const Sequences all = histories();
  const std::pair<bool, ExpertSharing> frames[] = {{true, ExpertSharing::shared},
                                                   {true, ExpertSharing::layer},
                                                   {false, ExpertSharing::carried},
                                                   {false, ExpertSharing::layer}};
  for (const auto& [causal, sharing] : frames) {
    for (const Retrieval retrieval : {Retrieval::none, Retrieval::rows, Retrieval::pooled}) {
      INFO("causal " << causal << ", sharing " << word_of(sharing) << ", retrieval " << word_of(retrieval));
      const Elastic model = elastic_model(causal, sharing, retrieval);
      const ExpertUse use = expert_use(model, all);
      REQUIRE(use.layers.size() == model.blocks.size());
      std::vector<LayerExpertUse> expected(use.layers.size());
      std::vector<std::map<std::int64_t, int>> chosen(use.layers.size());
      std::int64_t count = 0;
      for (std::int64_t i = 0; i < all.count(); ++i) {
        if (all.offsets.length(i) == 0) continue;
        ++count;
        const Sequences one = cut_to_window(all.slice(i, i + 1), kWindow, model.events_before());
        std::vector<LayerExperts> seen;
        model.encode(one, {}, &seen);
        for (std::size_t b = 0; b < seen.size(); ++b) {
          const auto* const kind = model.blocks[b].attention.as<nn::DispatcherKind>();
          const auto read = kind->last_read(seen[b].queries, seen[b].source, seen[b].experts, {one.offsets});
          LayerExpertUse& sums = expected[b];
          sums.shares.resize(kExperts);
          for (std::size_t h = 0; h < 2; ++h) {
            const double* const shares = read.shares.data<double>() + h * kExperts;
            for (std::size_t e = 0; e < kExperts; ++e) sums.shares[e] += shares[e] / 2;
            sums.entropy_of_reads += entropy(shares) / 2;
          }
          sums.cosine += mean_cosine(seen[b].experts.value().to_doubles());
          sums.cosine_gathered += mean_cosine(read.gathered.to_doubles());
          if (!seen[b].slots.defined()) continue;
          for (const double slot : seen[b].slots.to_doubles()) ++chosen[b][static_cast<std::int64_t>(slot)];
        }
      }
      CHECK(use.histories == count);
      for (std::size_t b = 0; b < use.layers.size(); ++b) {
        for (double& share : expected[b].shares) share /= static_cast<double>(count);
        for (std::size_t e = 0; e < kExperts; ++e) {
          CHECK(use.layers[b].shares[e] == Approx(expected[b].shares[e]).margin(1e-6));
        }
        CHECK(use.layers[b].entropy == Approx(entropy(expected[b].shares.data())).margin(1e-6));
        CHECK(use.layers[b].entropy_of_reads ==
              Approx(expected[b].entropy_of_reads / static_cast<double>(count)).margin(1e-6));
        CHECK(use.layers[b].cosine == Approx(expected[b].cosine / static_cast<double>(count)).margin(1e-5));
        CHECK(use.layers[b].cosine_gathered ==
              Approx(expected[b].cosine_gathered / static_cast<double>(count)).margin(1e-5));
      }
      const std::size_t memories = retrieval == Retrieval::none      ? 0
                                   : sharing == ExpertSharing::layer ? use.layers.size()
                                                                     : 1;
      REQUIRE(use.chosen.size() == memories);
      for (std::size_t m = 0; m < memories; ++m) {
        double total = 0, divergence = std::log(25);
        for (const auto& [slot, times] : chosen[m]) total += times;
        for (const auto& [slot, times] : chosen[m]) divergence += times / total * std::log(times / total);
        CHECK(use.chosen[m].rows == 25);
        CHECK(use.chosen[m].read == Approx(static_cast<double>(chosen[m].size()) / 25));
        CHECK(use.chosen[m].divergence == Approx(divergence).margin(1e-9));
      }
    }
  }
}

TEST_CASE("experts that are all the same are read alike", "[expert_use]") {
  Elastic model = elastic_model(true, ExpertSharing::shared, Retrieval::none);
  auto values = model.experts.mutable_value().mutable_span<float>();
  for (std::size_t i = kWidth; i < values.size(); ++i) values[i] = values[i - kWidth];
  for (const LayerExpertUse& layer : expert_use(model, histories()).layers) {
    for (const double share : layer.shares) CHECK(share == Approx(1.0 / kExperts));
    CHECK(layer.entropy == Approx(1));
    CHECK(layer.entropy_of_reads == Approx(1));
    CHECK(layer.cosine == Approx(1));
    CHECK(layer.cosine_gathered == Approx(1));
  }
  CHECK_THROWS_WITH(expert_use(model, Sequences::from({{}, {}}, kItems)), Catch::Matchers::Contains("not empty"));
}

TEST_CASE("codes that were chosen are counted where they have a weight", "[expert_use]") {
  ElasticOptions options = elastic_options();
  options.items = kItems;
  options.layers.width = kWidth;
  options.layers.window = kWindow;
  options.layers.attention.options = nn::DispatcherOptions{.experts = 4};
  options.causal = false;
  options.retrieval.retrieval = Retrieval::rows;
  options.retrieval.routing = {.routing = Routing::codes, .codebooks = 2, .codewords = 5};
  const Elastic model = Elastic::make(options, RngKey{3});
  // One item: two codewords.
  const ExpertUse use = expert_use(model, Sequences::from({{3}, {3, 3}}, kItems));
  REQUIRE(use.chosen.size() == 1);
  CHECK(use.chosen[0].rows == 10);
  CHECK(use.chosen[0].read == Approx(0.2));
  CHECK(use.chosen[0].divergence == Approx(std::log(10) - std::log(2)));
}

}  // namespace expert_use_test
