#include "tally/recsys/models/interest_retrieval.h"
#include "tally/recsys/models/sequence_model_of.h"

#include <catch2/catch.hpp>

#include "tally/autograd/gradient_check.h"
#include "tally/nn/attention/dispatcher.h"
#include "tally/nn/buffer_updates.h"
#include "tally/recsys/config/model_config.h"
#include "tally/recsys/models/code_routing.h"
#include "tally/recsys/models/elastic.h"
#include "tally/recsys/run/check_model.h"
#include "tally/recsys/training/recommender_task.h"

namespace interest_retrieval_test {

using namespace tally;
using namespace tally::recsys;
using Catch::Matchers::Contains;

namespace {

constexpr std::int64_t kItems = 17, kWidth = 6;

RetrievalOptions options_of(Retrieval kind) {
  RetrievalOptions options;
  options.retrieval = kind;
  options.memory.sub_keys = 4;
  options.memory.key_width = 6;
  options.memory.heads = 2;
  options.memory.slots = 3;
  return options;
}

Tensor normal(std::int64_t rows, std::uint64_t stream) {
  Tensor x({rows, kWidth});
  fill_normal(RngKey{5, stream}, x, 0, 1);
  return x;
}

Elastic model_of(Retrieval kind, ExpertSharing sharing = ExpertSharing::carried, std::int64_t revive_epochs = 0) {
  ElasticOptions options = elastic_options();
  options.items = kItems;
  options.layers.width = kWidth;
  options.layers.inner = 8;
  options.layers.window = 12;
  options.layers.deviation = 0.3;
  options.layers.attention.options = nn::DispatcherOptions{.experts = 4};
  options.causal = false;
  options.sharing = sharing;
  options.retrieval = options_of(kind);
  options.retrieval.revive_epochs = revive_epochs;
  return Elastic::make(options, RngKey{3});
}

}  // namespace

TEST_CASE("means of the last rows of each sequence", "[interest_retrieval]") {
  const std::vector<std::int64_t> lengths{3, 0, 1, 6};
  const Offsets offsets = Offsets::from_lengths(lengths);
  const Tensor rows = normal(10, 1);
  for (const std::int64_t most : {0, 1, 4}) {
    const Tensor means = mean_of_last(rows, offsets, most).value();
    for (std::int64_t i = 0; i < 4; ++i) {
      const std::int64_t length = offsets.length(i), count = most == 0 ? length : std::min(most, length);
      for (std::int64_t c = 0; c < kWidth; ++c) {
        double mean = 0;
        for (std::int64_t t = offsets.at(i + 1) - count; t < offsets.at(i + 1); ++t) {
          mean += double{rows.data<float>()[t * kWidth + c]} / static_cast<double>(count);
        }
        CHECK(double{means.data<float>()[i * kWidth + c]} == Approx(mean).margin(1e-6));
      }
    }
  }
}

TEST_CASE("experts are what each history's query reads of the memory", "[interest_retrieval]") {
  const std::vector<std::int64_t> lengths{3, 0, 6};
  const Offsets offsets = Offsets::from_lengths(lengths);
  const Tensor rows = normal(9, 1);
  for (const auto pooling : {QueryPooling::mean, QueryPooling::mean_last, QueryPooling::multi_scale}) {
    RetrievalOptions options = options_of(Retrieval::rows);
    options.pooling = pooling;
    const auto retrieval = InterestRetrieval::make(options, 4, kWidth, 2, 1, RngKey{1});
    const Var asked = retrieval.ask(rows, offsets);
    CHECK(asked.shape() == Shape{3, kWidth});
    for (const std::size_t layer : {0, 1}) {
      const Tensor experts = retrieval.experts(asked, layer, {}).value();
      CHECK(experts.shape() == Shape{3, 4, kWidth});
      const auto read = retrieval.memories[layer](asked, retrieval.values, {});
      for (std::int64_t e = 0; e < 12; ++e) {  // two heads of two slots
        const std::int64_t slot = read.slots.data<std::int64_t>()[e];
        const double weight = read.weights.value().to_doubles()[static_cast<std::size_t>(e)];
        for (std::int64_t c = 0; c < kWidth; ++c) {
          CHECK(double{experts.data<float>()[e * kWidth + c]} ==
                Approx(weight * double{retrieval.values.value().data<float>()[slot * kWidth + c]}).margin(1e-6));
        }
      }
    }
  }
  const auto retrieval = InterestRetrieval::make(options_of(Retrieval::pooled), 4, kWidth, 1, 1, RngKey{1});
  const Var asked = retrieval.ask(rows, offsets);
  const Tensor experts = retrieval.experts(asked, 0, {}).value();
  CHECK(experts.shape() == Shape{3, 4, kWidth});
  for (std::int64_t e = 0; e < 12; ++e) {
    Tensor asking({1, kWidth});
    const float *from = asked.value().data<float>() + e / 4 * kWidth,
                *base = retrieval.base.value().data<float>() + e % 4 * kWidth;
    for (std::int64_t c = 0; c < kWidth; ++c) asking.mutable_data<float>()[c] = from[c] + base[c];
    const Tensor read = retrieval.memories[0](asking, retrieval.values, {}).output.value();
    for (std::int64_t c = 0; c < kWidth; ++c) {
      CHECK(double{experts.data<float>()[e * kWidth + c]} ==
            Approx(double{base[c]} + double{read.data<float>()[c]}).margin(1e-5));
    }
  }
}

TEST_CASE("every parameter of a retrieving elastic has a right gradient", "[interest_retrieval]") {
  const auto check = [](const std::vector<std::pair<std::string, Json>>& settings) {
    ModelConfig config("elastic");
    config.set("hidden_size", 6);
    config.set("inner_size", 6);
    config.set("mask", "bidirectional");
    config.set("experts", 4);
    for (const auto& [key, value] : settings) config.set(key, value);
    config.set("memory_sub_keys", 3);
    config.set("memory_key_size", 8);
    const GradientReport report = check_model_gradients(config);
    for (const LeafReport& leaf : report.leaves) {
      INFO(leaf.name << ": " << leaf.hint << " scaled error " << leaf.max_scaled);
      CHECK(leaf.verdict == GradientVerdict::ok);
    }
  };
  check({{"retrieval", "rows"}, {"expert_sharing", "carried"}, {"memory_heads", 2}});
  check({{"retrieval", "rows"}, {"expert_sharing", "layer"}, {"memory_weights", "sigmoid"}, {"memory_norm", "unit"}});
  check({{"retrieval", "pooled"}, {"memory_slots", 2}, {"memory_gate", "swilu"}, {"memory_query_dropout", 0.2}});
}

TEST_CASE("a user's experts follow from the user's history alone", "[interest_retrieval]") {
  for (const Retrieval kind : {Retrieval::rows, Retrieval::pooled}) {
    for (const auto sharing : {ExpertSharing::layer, ExpertSharing::shared, ExpertSharing::carried}) {
      const Elastic model = model_of(kind, sharing);
      CHECK(model.retrieval->memories.size() == (sharing == ExpertSharing::layer ? 2 : 1));
      const Tensor alone = model.encode(Sequences::from({{4, 5, 6}}, kItems), {}).value();
      const Tensor together = model.encode(Sequences::from({{1, 2}, {}, {4, 5, 6}, {7}}, kItems), {}).value();
      const std::vector<double> own = alone.to_doubles(), same = together.slice(0, 2, 5).contiguous().to_doubles();
      for (std::size_t i = 0; i < own.size(); ++i) CHECK(own[i] == Approx(same[i]).margin(1e-6));
    }
  }
}

TEST_CASE("a retrieving elastic says how its memory is used, and dead slots begin anew", "[interest_retrieval]") {
  // One sample: each head reads three slots, so that at least one of its four sub-keys is dead.
  const std::vector<std::int32_t> user{1, 2};
  const std::vector<std::span<const std::int32_t>> histories{user};
  const TrainingBatches batches(histories, {.window = 12, .samples = TrainingSamples::prefix}, RngKey{1});
  SequenceModelOf<Elastic> model("elastic", model_of(Retrieval::rows, ExpertSharing::shared, 2));
  const auto measure = [&](const std::string& name) {
    for (const Measure& each : model.measures()) {
      if (each.name == name) return each.value;
    }
    return -1.0;
  };
  CHECK(measure("memory_read") == 0);
  RecommenderTask task(model, batches);
  const auto step = [&](std::int64_t epoch) {
    task.step({.epoch = epoch, .index = 0, .key = RngKey{1}}).updates.apply();
  };
  step(0);
  const double read = measure("memory_read");
  CHECK((read >= 2.0 / 16 && read < 1));
  CHECK(measure("memory_divergence") > 0);
  CHECK(measure("memory_query_norm") == Approx(std::sqrt(6.0)).epsilon(0.01));  // normed
  CHECK(measure("memory_key_norm") > 0);
  const std::vector<double> keys = model.module().retrieval->memories[0].keys.value().to_doubles();
  step(1);
  CHECK(model.module().retrieval->memories[0].keys.value().to_doubles() == keys);
  step(2);
  CHECK(model.module().retrieval->memories[0].keys.value().to_doubles() != keys);
  CHECK(SequenceModelOf<Elastic>("elastic", model_of(Retrieval::none)).measures().empty());
}

TEST_CASE("experts by the tally of codewords", "[code_routing]") {
  // Codes of three histories by two codebooks of three words.
  const std::vector<std::int64_t> lengths{4, 0, 1};
  const Offsets offsets = Offsets::from_lengths(lengths);
  const Tensor codes = Tensor::from<std::int32_t>({0, 2, 1, 2, 1, 0, 1, 2, 2, 2}, {5, 2});
  const FrequentCodes frequent = most_frequent(codes, 3, offsets, 3);
  CHECK(frequent.slots.to_doubles() == std::vector<double>{1, 5, 0, 0, 1, 2, 2, 5, 0});
  CHECK(frequent.counts.to_doubles() == std::vector<double>{3, 3, 1, 0, 0, 0, 1, 1, 0});
  CHECK_THROWS_WITH(most_frequent(codes, 3, offsets, 7), Contains("needs 1 to 6 codewords"));

  RoutingOptions options{.routing = Routing::codes, .codebooks = 2, .codewords = 3};
  CodeRouting routing = CodeRouting::make(options, 3, kWidth, 1, RngKey{1});
  const Tensor rows = normal(5, 1);
  const Tensor experts = routing(rows, offsets, {}).value();
  CHECK(experts.shape() == Shape{3, 3, kWidth});
  const FrequentCodes own = most_frequent(routing.quantizer.encode(rows), 3, offsets, 3);
  for (std::int64_t e = 0; e < 9; ++e) {
    const std::vector<double> counts = own.counts.slice(0, e / 3, e / 3 + 1).contiguous().to_doubles();
    const double total = counts[0] + counts[1] + counts[2],
                 weight = total == 0 ? 1 : 3 * counts[static_cast<std::size_t>(e % 3)] / total;
    const float* value = routing.values.value().data<float>() + own.slots.data<std::int64_t>()[e] * kWidth;
    for (std::int64_t c = 0; c < kWidth; ++c) {
      CHECK(double{experts.data<float>()[e * kWidth + c]} == Approx(weight * double{value[c]}).margin(1e-6));
    }
  }
  // In training, codebooks follow the rows.
  nn::BufferUpdates updates;
  routing(rows, offsets, {.training = true, .updates = &updates});
  const std::vector<double> before = routing.quantizer.codewords().value().to_doubles();
  updates.apply();
  CHECK(routing.quantizer.codewords().value().to_doubles() != before);
  CHECK(routing.share_used() > 0);
}

TEST_CASE("an elastic routed by codes trains, and its values have right gradients", "[code_routing]") {
  ElasticOptions options = elastic_options();
  options.items = kItems;
  options.layers.width = kWidth;
  options.layers.window = 12;
  options.layers.attention.options = nn::DispatcherOptions{.experts = 4};
  options.causal = false;
  options.sharing = ExpertSharing::carried;
  options.retrieval.retrieval = Retrieval::rows;
  options.retrieval.routing = {.routing = Routing::codes, .codebooks = 2, .codewords = 5};
  const Elastic model = Elastic::make(options, RngKey{3});
  CHECK_FALSE(model.retrieval.has_value());
  const Sequences batch = Sequences::from({{1, 2, 3}, {}, {4, 5, 6, 7}}, kItems);
  CHECK(model.encode(batch, {}).shape() == Shape{7, kWidth});
  // Choosing has no gradient: with a frozen table of items, which codes are of, all is smooth.
  Elastic checked = model;
  nn::convert(checked, DType::f64);
  std::vector<CheckedLeaf> leaves;
  for (const auto& [path, parameter] : nn::parameters(checked)) {
    if (path != "items.table") leaves.push_back({path, parameter->value(), parameter->id()});
  }
  const GradientReport report = check_gradients([&] { return std::vector<Var>{checked.encode(batch, {})}; }, leaves);
  for (const LeafReport& leaf : report.leaves) {
    INFO(leaf.name << ": " << leaf.hint << " scaled error " << leaf.max_scaled);
    CHECK(leaf.verdict == GradientVerdict::ok);
  }
}

TEST_CASE("settings of retrieval that contradict each other are refused", "[interest_retrieval]") {
  const auto set = [](const std::vector<std::pair<std::string, Json>>& settings) {
    ModelConfig config("elastic");
    for (const auto& [key, value] : settings) config.set(key, value);
  };
  CHECK_THROWS_WITH(set({{"mask", "bidirectional"}, {"retrieval", "rows"}, {"retrieval_window", 9}}),
                    Contains("mask causal"));
  CHECK_THROWS_WITH(set({{"retrieval_window", 9}}), Contains("retrieval"));
  CHECK_THROWS_WITH(set({{"mask", "bidirectional"}, {"retrieval", "rows"}, {"memory_heads", 3}}),
                    Contains("model.experts] needs a multiple of memory_heads 3"));
  CHECK_THROWS_WITH(set({{"mask", "bidirectional"}, {"retrieval", "rows"}, {"memory_sub_keys", 5}}),
                    Contains("at most 25 slots"));
  CHECK_THROWS_WITH(set({{"mask", "bidirectional"}, {"retrieval", "rows"}, {"memory_sub_keys", 3'037'000'500}}),
                    Contains("below 2^63; got 3037000500 x 3037000500"));
  CHECK_THROWS_WITH(set({{"mask", "bidirectional"}, {"retrieval", "pooled"}, {"memory_sub_keys", 2}}),
                    Contains("model.memory_slots] needs at most 4"));
  CHECK_THROWS_WITH(set({{"mask", "bidirectional"}, {"retrieval", "rows"}, {"memory_gate", "scalar"}}),
                    Contains("retrieval pooled"));
  CHECK_THROWS_WITH(set({{"memory_heads", 2}}), Contains("retrieval"));
  CHECK_THROWS_WITH(set({{"mask", "bidirectional"}, {"retrieval", "rows"}, {"routing_codewords", 9}}),
                    Contains("routing"));
  CHECK_THROWS_WITH(set({{"mask", "bidirectional"}, {"retrieval", "rows"}, {"routing", "codes"}, {"memory_heads", 2}}),
                    Contains("routing product_keys"));
  CHECK_THROWS_WITH(set({{"mask", "bidirectional"},
                         {"retrieval", "rows"},
                         {"routing", "codes"},
                         {"routing_codewords", 4},
                         {"routing_codebooks", 2}}),
                    Contains("at most as many as there are codewords"));
  CHECK_THROWS_WITH(set({{"mask", "bidirectional"}, {"attention", "softmax"}, {"retrieval", "rows"}}),
                    Contains("needs attention dispatcher"));
}

}  // namespace interest_retrieval_test
