// Causal models whose experts are chosen by the events before the window.
#include <catch2/catch.hpp>

#include "tally/nn/attention/dispatcher.h"
#include "tally/recsys/config/model_config.h"
#include "tally/recsys/models/elastic.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tally/recsys/models/sequence_model_of.h"
#include "tally/recsys/run/check_model.h"
#include "tally/recsys/training/recommender_task.h"

namespace retrieval_before_window_test {

using namespace tally;
using namespace tally::recsys;

namespace {

constexpr std::int64_t kItems = 19, kWindow = 6, kBefore = 5;

using Histories = std::vector<std::vector<std::int32_t>>;

struct Setting {
  const char* name;
  Retrieval retrieval;
  Routing routing;
  ExpertSharing sharing;
};
constexpr Setting kSettings[] = {
    {"rows", Retrieval::rows, Routing::product_keys, ExpertSharing::shared},
    {"rows of each layer", Retrieval::rows, Routing::product_keys, ExpertSharing::layer},
    {"pooled", Retrieval::pooled, Routing::product_keys, ExpertSharing::shared},
    {"codes", Retrieval::rows, Routing::codes, ExpertSharing::shared},
};

Elastic model_of(const Setting& setting) {
  ElasticOptions options = elastic_options();
  options.items = kItems;
  options.layers.width = 8;
  options.layers.inner = 8;
  options.layers.window = kWindow;
  options.layers.deviation = 0.3;
  options.layers.attention.options = nn::DispatcherOptions{.experts = 4};
  options.sharing = setting.sharing;
  options.retrieval.retrieval = setting.retrieval;
  options.retrieval.events_before = kBefore;
  options.retrieval.memory.sub_keys = 6;
  options.retrieval.memory.slots = 3;
  options.retrieval.routing = {.routing = setting.routing, .codebooks = 2, .codewords = 7};
  options.check("model");
  return Elastic::make(options, RngKey{3});
}

Sequences cut(const Histories& histories) {
  return cut_to_window(Sequences::from(histories, kItems), kWindow, kBefore);
}

/// Of each layer and each sequence.
std::vector<std::vector<double>> experts_of(const Elastic& model, const Sequences& batch) {
  std::vector<LayerExperts> seen;
  model.encode(batch, {}, &seen);
  std::vector<std::vector<double>> all;
  for (const LayerExperts& layer : seen) {
    REQUIRE(layer.experts.shape() == Shape{batch.count(), 4, 8});
    for (std::int64_t i = 0; i < batch.count(); ++i) {
      all.push_back(layer.experts.value().slice(0, i, i + 1).contiguous().to_doubles());
    }
  }
  return all;
}

std::vector<double> row_of(const Tensor& rows, std::int64_t t) {
  return rows.slice(0, t, t + 1).contiguous().to_doubles();
}

}  // namespace

TEST_CASE("cutting, slicing and joining keep what came before", "[before]") {
  const Histories histories{{0, 1, 2, 3, 4, 5, 6, 7}, {8, 9}, {}, {10, 11, 12, 13}};
  const Sequences all = Sequences::from(histories, kItems);
  const Sequences window = cut_to_window(all, 3, 4);
  CHECK(window.items.to_doubles() == std::vector<double>{5, 6, 7, 8, 9, 11, 12, 13});
  CHECK(window.before.items.to_doubles() == std::vector<double>{1, 2, 3, 4, 10});
  CHECK(window.before.offsets.tensor().to_doubles() == std::vector<double>{0, 4, 4, 4, 5});
  CHECK_FALSE(cut_to_window(all, 3).before.items.defined());
  const Sequences part = window.slice(2, 4);
  CHECK(part.before.items.to_doubles() == std::vector<double>{10});
  CHECK(part.before.offsets.tensor().to_doubles() == std::vector<double>{0, 0, 1});
  const std::vector<Sequences> parts{part, window};
  CHECK(concatenate(parts).before.items.to_doubles() == std::vector<double>{10, 1, 2, 3, 4, 10});
  CHECK(concatenate(parts).before.offsets.tensor().to_doubles() == std::vector<double>{0, 0, 1, 5, 5, 5, 6});
  const std::vector<Sequences> mixed{part, all};
  CHECK_FALSE(concatenate(mixed).before.items.defined());
}

TEST_CASE("training samples come with the user's events before them", "[before]") {
  // An item is its place in the history.
  std::vector<std::int32_t> places(17);
  for (std::size_t i = 0; i < places.size(); ++i) places[i] = static_cast<std::int32_t>(i);
  const std::vector<std::span<const std::int32_t>> histories{places, std::span(places).first(4)};
  for (const auto samples :
       {TrainingSamples::shifted, TrainingSamples::prefix, TrainingSamples::window, TrainingSamples::pieces}) {
    const TrainingBatches batches(
        histories, {.batch_size = 3, .window = 6, .shard_tokens = 10, .samples = samples, .events_before = 4},
        RngKey{1});
    std::int64_t seen = 0;
    for (std::int64_t b = 0; b < batches.batches_per_epoch(); ++b) {
      for (const TrainingShard& shard : batches.batch(0, b).shards) {
        const PackedItems& before = shard.inputs.before;
        REQUIRE(before.offsets.count() == shard.inputs.count());
        for (std::int64_t i = 0; i < shard.inputs.count(); ++i) {
          const std::int64_t first = shard.inputs.sequence(i)[0], length = before.offsets.length(i);
          CHECK(length == std::min<std::int64_t>(first, 4));
          for (std::int64_t j = 0; j < length; ++j, ++seen) {
            CHECK(before.items.data<std::int32_t>()[before.offsets.at(i) + j] == first - length + j);
          }
        }
      }
    }
    CHECK(seen > 0);
  }
  const TrainingBatches without(histories, {.window = 6}, RngKey{1});
  CHECK_FALSE(without.batch(0, 0).shards[0].inputs.before.items.defined());
}

TEST_CASE("a causal model's experts are chosen by what precedes the window alone", "[before][elastic]") {
  for (const Setting& setting : kSettings) {
    INFO(setting.name);
    const Elastic model = model_of(setting);
    CHECK_FALSE(model.looks_ahead());
    CHECK(model.events_before() == kBefore);
    // Eleven events: five choose, six are read. The second history has nothing before its window.
    const Histories histories{{9, 9, 3, 1, 4, 5, 9, 2, 6, 5, 3}, {2, 7, 1}};
    const auto experts = experts_of(model, cut(histories));
    const Tensor rows = model.encode(cut(histories), {}).value();
    for (std::size_t at = 5; at < 11; ++at) {
      Histories changed = histories;
      changed[0][at] = 18;
      CHECK(experts_of(model, cut(changed)) == experts);
      const Tensor then = model.encode(cut(changed), {}).value();
      for (std::int64_t t = 0; t < 6; ++t) {
        CHECK((row_of(rows, t) == row_of(then, t)) == (t < static_cast<std::int64_t>(at) - 5));
      }
    }
    // What comes before counts, for its own sequence.
    Histories other = histories;
    other[0] = {9, 14, 12, 11, 13, 5, 9, 2, 6, 5, 3};
    const auto others = experts_of(model, cut(other));
    for (std::size_t i = 0; i < experts.size(); ++i) CHECK((experts[i] == others[i]) == (i % 2 == 1));
    const Tensor by_others = model.encode(cut(other), {}).value();
    CHECK(row_of(by_others, 0) == row_of(rows, 0));  // all experts gather one row
    CHECK(row_of(by_others, 1) != row_of(rows, 1));
    CHECK(row_of(by_others, 7) == row_of(rows, 7));
    // Events too old do not.
    Histories longer = histories;
    longer[0].insert(longer[0].begin(), {7, 7, 7});
    CHECK(experts_of(model, cut(longer)) == experts);
    // Without any, experts are those of a user of whom nothing is known, and the same for all.
    const auto nobody = experts_of(model, cut({{5}, {2, 7, 1}}));
    for (std::size_t layer = 0; layer < 2; ++layer) {
      CHECK(nobody[2 * layer] == nobody[2 * layer + 1]);
      CHECK(nobody[2 * layer] == experts[2 * layer + 1]);
    }
  }
}

TEST_CASE("rankers and streams read what the causal model is given before its window", "[before][elastic]") {
  const std::vector<std::int32_t> events{9, 9, 3, 1, 4, 5, 9, 2, 6, 5, 3, 17, 0, 8, 8, 1};
  for (const Setting& setting : kSettings) {
    INFO(setting.name);
    const SequenceModelOf<Elastic> model("elastic", model_of(setting));
    const Tensor table = model.module().item_table().value();
    const Ranker ranker = make_ranker(model);
    const auto recurrent = model.recurrent();
    ModelState state = recurrent->initial_state();
    std::vector<float> row(8), scores(kItems);
    for (std::size_t n = 1; n <= events.size(); ++n) {
      recurrent->step(state, events[n - 1], row);
      const std::vector<std::int32_t> history(events.begin(), events.begin() + static_cast<std::ptrdiff_t>(n));
      const Tensor rows = model.module().encode(cut({history}), {}).value();
      const std::vector<double> last = row_of(rows, rows.dim(0) - 1);
      const std::vector<double> ranked = ranker.score(Sequences::from({{1, 2}, history, {}}, kItems)).to_doubles();
      recurrent->scorer().score(row, scores);
      for (std::int64_t i = 0; i < kItems; ++i) {
        double score = 0;
        for (std::int64_t c = 0; c < 8; ++c) {
          score += last[static_cast<std::size_t>(c)] * double{table.data<float>()[i * 8 + c]};
        }
        CHECK(ranked[static_cast<std::size_t>(kItems + i)] == Approx(score).margin(1e-5));
        CHECK(double{scores[static_cast<std::size_t>(i)]} == Approx(score).margin(1e-5));
      }
    }
    CHECK_THAT(recurrent->layout(), Catch::Matchers::Contains("the last 11 items") &&
                                        Catch::Matchers::Contains("of up to 5 events before the window"));
  }
}

TEST_CASE("a causal model that retrieves trains on windows, and its gradients are right", "[before][elastic]") {
  std::vector<std::int32_t> long_history;
  for (std::int32_t i = 0; i < 40; ++i) long_history.push_back((i * 7 + 3) % kItems);
  const std::vector<std::int32_t> short_history{4, 5, 6};
  const std::vector<std::span<const std::int32_t>> histories{long_history, short_history};
  for (const Setting& setting : kSettings) {
    INFO(setting.name);
    SequenceModelOf<Elastic> model("elastic", model_of(setting));
    const TrainingBatches batches(
        histories, {.window = kWindow, .samples = TrainingSamples::window, .events_before = kBefore}, RngKey{1});
    RecommenderTask task(model, batches);
    const nn::TaskStep step = task.step({.epoch = 0, .index = 0, .key = RngKey{1}});
    CHECK(step.loss > 0);
    if (setting.routing == Routing::product_keys) {
      CHECK(step.gradients.contains(model.module().retrieval->values.var()));
    } else {
      CHECK(step.gradients.contains(model.module().routing->values.var()));
    }
  }
  for (const char* kind : {"rows", "pooled"}) {
    ModelConfig config("elastic");
    config.set("hidden_size", 6);
    config.set("inner_size", 6);
    config.set("experts", 4);
    config.set("retrieval", kind);
    config.set("memory_sub_keys", 3);
    config.set("memory_key_size", 8);
    for (const LeafReport& leaf : check_model_gradients(config).leaves) {
      INFO(leaf.name << ": " << leaf.hint << " scaled error " << leaf.max_scaled);
      CHECK(leaf.verdict == GradientVerdict::ok);
    }
  }
}

}  // namespace retrieval_before_window_test
