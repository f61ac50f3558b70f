#include "tally/recsys/models/elastic.h"
#include "tally/recsys/models/sequence_model_of.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "tally/nn/attention/dispatcher.h"
#include "tally/recsys/config/model_config.h"
#include "tally/recsys/models/sasrec.h"
#include "tally/recsys/run/check_model.h"
#include "tally/recsys/training/recommender_task.h"

namespace elastic_test {

using namespace tally;
using namespace tally::recsys;
using Catch::Matchers::Contains;

namespace {

constexpr std::int64_t kItems = 17;

ElasticOptions options_of(bool causal, ExpertSharing sharing) {
  ElasticOptions options = elastic_options();
  options.items = kItems;
  options.layers.width = 8;
  options.layers.inner = 12;
  options.layers.window = 12;
  options.layers.deviation = 0.3;
  options.layers.attention.options = nn::DispatcherOptions{.experts = 4};
  options.causal = causal;
  options.sharing = sharing;
  return options;
}

Elastic make(bool causal, ExpertSharing sharing) { return Elastic::make(options_of(causal, sharing), RngKey{3}); }

Sequences batch_of(const std::vector<std::vector<std::int32_t>>& sequences) {
  return Sequences::from(sequences, kItems);
}

std::vector<double> row_of(const Tensor& rows, std::int64_t t) {
  return rows.slice(0, t, t + 1).contiguous().to_doubles();
}

}  // namespace

TEST_CASE("every parameter of elastic has a right gradient", "[elastic]") {
  const auto check = [](const std::vector<std::pair<std::string, Json>>& settings) {
    ModelConfig config("elastic");
    config.set("hidden_size", 8);
    config.set("inner_size", 8);
    for (const auto& [key, value] : settings) config.set(key, value);
    const GradientReport report = check_model_gradients(config);
    CHECK(report.leaves.size() > 20);
    for (const LeafReport& leaf : report.leaves) {
      INFO(leaf.name << ": " << leaf.hint << " scaled error " << leaf.max_scaled);
      CHECK(leaf.verdict == GradientVerdict::ok);
    }
  };
  check({{"experts", 3}});
  check({{"experts", 3}, {"expert_sharing", "layer"}, {"expert_heads", "own"}});
  check({{"experts", 3}, {"mask", "bidirectional"}, {"expert_sharing", "carried"}});
  check({{"mask", "bidirectional"}, {"attention", "linformer"}, {"projected_keys", 3}});
  check({{"mask", "bidirectional"}, {"attention", "lightsans"}, {"k_interests", 3}});
}

TEST_CASE("experts of each layer: the causal elastic is sasrec with dispatcher attention", "[elastic]") {
  const ElasticOptions options = options_of(true, ExpertSharing::layer);
  SasRecOptions layers = options.layers;
  layers.items = kItems;
  const Sequences batch = batch_of({{1, 2, 3}, {}, {4, 5, 6, 7, 8}});
  const Tensor own = Elastic::make(options, RngKey{3}).encode(batch, {}).value();
  CHECK(own.to_doubles() == SasRec::make(layers, RngKey{3}).encode(batch, {}).value().to_doubles());
  // Shared experts are the same experts in every layer.
  const Elastic shared = make(true, ExpertSharing::shared);
  const Elastic unshared = shared.for_events();
  CHECK(shared.encode(batch, {}).value().to_doubles() == unshared.encode(batch, {}).value().to_doubles());
  CHECK(nn::count_parameters(unshared) == nn::count_parameters(shared) + 4 * 8);
}

TEST_CASE("carried experts are those that a layer's gathered, normed with their own", "[elastic]") {
  const Elastic model = make(false, ExpertSharing::carried);
  const Sequences batch = batch_of({{1, 2, 3, 4}});
  const nn::Sequence sequence{batch.offsets};
  const auto kind = [&](std::size_t b) { return model.blocks[b].attention.as<nn::DispatcherKind>(); };
  Var x = model.embed(batch.items, positions(batch.offsets, 12, model.alignment), {});
  Var gathered;
  x = model.blocks[0].around(
      [&](const Var& q, const Var& s) {
        const auto dispatched = kind(0)->dispatch(q, s, model.experts, sequence);
        gathered = dispatched.experts;
        return dispatched.output;
      },
      x, {});
  // norm(P + gathered W^T + b), by hand.
  const std::vector<double> p = model.experts.value().to_doubles(), g = gathered.value().to_doubles(),
                            w = model.carried[0].output.weight.value().to_doubles();
  Tensor next({1, 4, 8});
  for (std::size_t e = 0; e < 4; ++e) {
    std::vector<double> row(8);
    double mean = 0, variance = 0;
    for (std::size_t i = 0; i < 8; ++i) {
      row[i] = p[e * 8 + i];
      for (std::size_t j = 0; j < 8; ++j) row[i] += w[i * 8 + j] * g[e * 8 + j];
      mean += row[i] / 8;
    }
    for (const double value : row) variance += (value - mean) * (value - mean) / 8;
    for (std::size_t i = 0; i < 8; ++i) {
      next.mutable_data<float>()[e * 8 + i] = static_cast<float>((row[i] - mean) / std::sqrt(variance + 1e-8));
    }
  }
  x = model.blocks[1].around([&](const Var& q, const Var& s) { return kind(1)->dispatch(q, s, next, sequence).output; },
                             x, {});
  const std::vector<double> expected = model.finish(x).value().to_doubles(),
                            got = model.encode(batch, {}).value().to_doubles();
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == Approx(expected[i]).margin(1e-5));
}

TEST_CASE("the causal elastic does not see what follows, and the other does", "[elastic]") {
  const Sequences before = batch_of({{1, 2, 3, 4, 5, 6}}), after = batch_of({{1, 2, 3, 9, 16, 0}});
  for (const auto sharing : {ExpertSharing::layer, ExpertSharing::shared}) {
    const Elastic causal = make(true, sharing), both = make(false, sharing);
    CHECK_FALSE(causal.looks_ahead());
    CHECK(both.looks_ahead());
    const Tensor once = causal.encode(before, {}).value(), then = causal.encode(after, {}).value();
    for (std::int64_t t = 0; t < 3; ++t) CHECK(row_of(once, t) == row_of(then, t));
    CHECK(row_of(once, 3) != row_of(then, 3));
    CHECK(row_of(both.encode(before, {}).value(), 0) != row_of(both.encode(after, {}).value(), 0));
  }
}

TEST_CASE("a model that looks ahead trains on prefixes alone", "[elastic]") {
  const std::vector<std::vector<std::int32_t>> users{{1, 2, 3, 4, 5}, {3, 4, 5, 6}};
  const std::vector<std::span<const std::int32_t>> histories{users[0], users[1]};
  SequenceModelOf<Elastic> model("elastic", make(false, ExpertSharing::carried));
  for (const TrainingSamples samples : {TrainingSamples::shifted, TrainingSamples::window, TrainingSamples::pieces}) {
    const TrainingBatches batches(histories, {.window = 12, .samples = samples}, RngKey{1});
    CHECK_THROWS_WITH(RecommenderTask(model, batches), Contains("train.train_samples] needs prefix"));
  }
  const TrainingBatches batches(histories, {.window = 12, .samples = TrainingSamples::prefix}, RngKey{1});
  RecommenderTask task(model, batches);
  CHECK(task.step({.epoch = 0, .index = 0, .key = RngKey{1}}).loss > 0);
  // The target of a prefix sample is no input of it: a sample with another target has the same row.
  for (const TrainingShard& shard : batches.batch(0, 0).shards) {
    for (std::int64_t i = 0; i < shard.inputs.count(); ++i) {
      for (std::int64_t t = shard.inputs.offsets.at(i); t + 1 < shard.inputs.offsets.at(i + 1); ++t) {
        CHECK(shard.targets.span<std::int32_t>()[static_cast<std::size_t>(t)] == -1);
      }
    }
  }
}

TEST_CASE("settings of elastic that contradict each other are refused", "[elastic]") {
  const auto set = [](const std::vector<std::pair<std::string, Json>>& settings) {
    ModelConfig config("elastic");
    for (const auto& [key, value] : settings) config.set(key, value);
  };
  CHECK_THROWS_WITH(set({{"expert_sharing", "carried"}}), Contains("model.expert_sharing] needs mask bidirectional"));
  CHECK_THROWS_WITH(set({{"attention", "linformer"}}), Contains("model.mask] needs bidirectional"));
  CHECK_THROWS_WITH(set({{"experts", 0}}), Contains("at least 1"));
  CHECK_THROWS_WITH(set({{"n_heads", 5}}), Contains("multiple of n_heads"));
  CHECK_THROWS_WITH(set({{"attention", "softmax"}, {"expert_sharing", "layer"}}), Contains("attention dispatcher"));
}

}  // namespace elastic_test
