#include "tally/nn/layers.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "tally/core/io/json.h"
#include "tally/core/io/safetensors.h"
#include "tally/nn/attention/gated_slot.h"
#include "tally/nn/attention/linear_memory.h"
#include "tally/nn/attention/multi_head.h"
#include "tally/nn/attention/softmax.h"
#include "tally/nn/blocks/transformer.h"
#include "tally/nn/buffer_updates.h"
#include "tally/nn/initializers.h"
#include "tally/nn/memory/product_key_memory.h"
#include "tally/nn/quantization.h"
#include "tally/nn/recurrent.h"
#include "tally/ops/tensor/reduce.h"
#include "tally/ops/tensor/shape.h"
#include "tests/nn/module_gradients.h"
#include "tests/support/attention_choices.h"

namespace layers_test {

using namespace tally;
using tally::testing::check_module;

namespace {

struct AttentionLayer {
  nn::Attention attention;
  static constexpr void fields(auto& self, auto&& visit) { visit("attention", self.attention); }
};

Tensor rows(std::int64_t count, std::int64_t width, std::uint64_t stream) {
  Tensor x({count, width}, DType::f64);
  fill_normal(RngKey{5, stream}, x, 0, 1);
  return x;
}

}  // namespace

TEST_CASE("layers have right gradients", "[layers]") {
  SECTION("linear") {
    auto layer = nn::Linear::make({.in = 3, .out = 4}, RngKey{1});
    check_module(layer, rows(5, 3, 1), [&](const Var& x) { return layer(x, ops::Activation::gelu); });
  }
  SECTION("layer norm") {
    auto layer = nn::LayerNorm::make({6});
    check_module(layer, rows(5, 6, 2), [&](const Var& x) { return layer(x); });
  }
  SECTION("rms norm") {
    auto layer = nn::RmsNorm::make({6});
    check_module(layer, rows(5, 6, 3), [&](const Var& x) { return layer(x); });
  }
  SECTION("feed-forward with dropout") {
    auto layer =
        nn::FeedForward::make({.width = 4, .inner = 6, .activation = ops::Activation::silu, .dropout = 0.3}, RngKey{2});
    check_module(layer, rows(5, 4, 4), [&](const Var& x) { return layer(x, {.training = true, .key = RngKey{3}}); });
  }
  SECTION("gru") {
    auto layer = nn::Gru::make({.in = 3, .width = 4}, RngKey{2});
    const std::vector<std::int64_t> lengths{3, 0, 1, 2};
    const Offsets offsets = Offsets::from_lengths(lengths);
    check_module(layer, rows(6, 3, 5), [&](const Var& x) { return layer(x, offsets); });
    auto first = nn::Gru::make({.in = 3, .width = 4, .linear_before_reset = false}, RngKey{2});
    check_module(first, rows(6, 3, 5), [&](const Var& x) { return first(x, offsets); });
    auto both = nn::BidirectionalGru::make({.in = 3, .width = 4}, RngKey{2});
    check_module(both, rows(6, 3, 5), [&](const Var& x) { return both(x, offsets); });
    auto lstm = nn::Lstm::make({.in = 3, .width = 4}, RngKey{2});
    check_module(lstm, rows(6, 3, 5), [&](const Var& x) { return lstm(x, offsets).states; });
  }
  SECTION("batch norm") {
    auto layer = nn::BatchNorm::make({.width = 4});
    check_module(layer, rows(5, 4, 6), [&](const Var& x) { return layer(x, {.training = true}); });
    check_module(layer, rows(5, 4, 6), [&](const Var& x) { return layer(x, {}); });
  }
}

TEST_CASE("a bidirectional GRU reads each sequence from both ends", "[layers]") {
  const auto layer = nn::BidirectionalGru::make({.in = 3, .width = 2}, RngKey{2});
  const std::vector<std::int64_t> lengths{3, 0, 4};
  const Tensor x = rows(7, 3, 5).to(DType::f32);
  const Tensor y = layer(x, Offsets::from_lengths(lengths)).value();
  // A sequence by itself, reversed by hand.
  for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{0, 3}, {3, 7}}) {
    const Tensor own = x.slice(0, begin, end).contiguous();
    const Offsets one = Offsets::single(end - begin);
    const Tensor forward = layer.forward(own, one).value();
    const Tensor backward = layer.backward(ops::reverse(own, {0}), one).value();
    for (std::int64_t t = 0; t < end - begin; ++t) {
      for (std::int64_t j = 0; j < 2; ++j) {
        CHECK(y(begin + t, j) == forward(t, j));
        CHECK(y(begin + t, 2 + j) == backward(end - begin - 1 - t, j));
      }
    }
  }
}

TEST_CASE("batch norm gives ONNX's results", "[layers]") {
  // tests/golden/make_onnx_golden.py wrote them.
  const TensorFile file = load_safetensors(TALLY_SOURCE_DIR "/tests/golden/onnx_batch_norm.safetensors");
  const Json options = parse_json(file.metadata.at("options"), "options");
  int count = 0;
  for (const auto& [name, text] : options.members()) {
    const Json given = parse_json(text.as_string(), name);
    const auto at = [&, &name = name](const char* tensor) { return file.at(name + '/' + tensor); };
    nn::BatchNorm layer{nn::Parameter(at("s")), nn::Parameter(at("bias")),       nn::Buffer(at("mean")),
                        nn::Buffer(at("var")),  given.at("epsilon").as_double(), 0.1};
    const bool training = given.at("training").as_bool();
    nn::BufferUpdates updates;
    const Tensor y = layer(at("x"), {.training = training, .updates = &updates}).value();
    updates.apply();
    const auto close = [](const Tensor& a, const Tensor& b) {
      REQUIRE(a.shape() == b.shape());
      for (std::int64_t i = 0; i < a.numel(); ++i) CHECK(a.data<float>()[i] == Approx(b.data<float>()[i]).margin(2e-6));
    };
    close(y, at("expected/y"));
    if (training) close(layer.running_mean.value(), at("expected/output_mean"));
    ++count;
  }
  CHECK(count == 4);
}

TEST_CASE("batch norm keeps running statistics", "[layers]") {
  auto layer = nn::BatchNorm::make({.width = 3, .epsilon = 1e-3, .momentum = 0.25});
  const Tensor x = rows(5, 3, 7).to(DType::f32);
  nn::BufferUpdates updates;
  const Tensor y = layer(x, {.training = true, .updates = &updates}).value();
  layer(x, {.training = true, .first_row = 5, .updates = &updates});  // a later shard
  updates.apply();
  for (std::int64_t j = 0; j < 3; ++j) {
    double mean = 0, squares = 0;
    for (std::int64_t i = 0; i < 5; ++i) mean += x(i, j) / 5;
    for (std::int64_t i = 0; i < 5; ++i) squares += (x(i, j) - mean) * (x(i, j) - mean);
    for (std::int64_t i = 0; i < 5; ++i) {
      CHECK(y(i, j) == Approx((x(i, j) - mean) / std::sqrt(squares / 5 + 1e-3)).margin(1e-6));
    }
    const double kept_mean = 0.25 * mean, kept_variance = 0.75 + 0.25 * squares / 4;
    CHECK(layer.running_mean.value()(j) == Approx(kept_mean).margin(1e-7));
    CHECK(layer.running_variance.value()(j) == Approx(kept_variance));
    CHECK(layer(x, {}).value()(0, j) == Approx((x(0, j) - kept_mean) / std::sqrt(kept_variance + 1e-3)).margin(1e-6));
  }
  CHECK_THROWS_WITH(layer(x.slice(0, 0, 1), {.training = true}), Catch::Matchers::Contains("two rows in training"));
}

TEST_CASE("transformer blocks have right gradients in every placement of the norm", "[layers]") {
  const std::vector<std::int64_t> lengths{4, 0, 1, 3};
  const Offsets offsets = Offsets::from_lengths(lengths);
  for (const auto norm : {nn::NormPlacement::pre, nn::NormPlacement::post, nn::NormPlacement::sasrec}) {
    auto block = nn::TransformerBlock::make(
        {.attention = attention_choice(nn::attention_kinds(), "softmax", {{"attn_dropout_prob", 0.2}}),
         .settings = {.width = 4, .heads = 2},
         .inner = 6,
         .activation = ops::Activation::gelu,
         .hidden_dropout = 0.2,
         .norm = norm},
        RngKey{4});
    check_module(block, rows(8, 4, 5),
                 [&](const Var& x) { return block(x, {offsets}, {.training = true, .key = RngKey{3}}); });
  }
}

TEST_CASE("every attention of the table has right gradients, and the causal ones are causal", "[layers]") {
  constexpr std::int64_t width = 4;
  const std::vector<std::int64_t> lengths{7, 0, 1, 5};
  const Offsets offsets = Offsets::from_lengths(lengths);
  const nn::Sequence sequence{offsets, Tensor::from<double>({0, 1, 1, 4, 9, 90, 95, 5, 3, 4, 8, 8, 30}, {13})};
  for (const nn::AttentionRow& entry : nn::attention_kinds()) {
    INFO(entry.name);
    const nn::AttentionSettings settings{
        .width = width,
        .heads = 2,
        .mask = entry.causal ? ops::AttentionMask::causal : ops::AttentionMask::bidirectional,
        .max_length = 7};
    const nn::AttentionChoice choice = attention_choice(nn::attention_kinds(), entry.name,
                                                        {{"attention_block", 3},
                                                         {"random_features", 6},
                                                         {"lsh_buckets", 4},
                                                         {"projected_keys", 2},
                                                         {"experts", 3},
                                                         {"lambda_window", 3},
                                                         {"memory_contexts", 3},
                                                         {"slots", 3}});
    AttentionLayer layer{nn::make_attention(choice, settings, RngKey{4})};
    const Tensor x = rows(13, width, 5);
    if (entry.smooth) {
      // Where what is read is normed, weights of ordinary size: of small reads numeric derivatives say little.
      const bool normed =
          layer.attention.as<nn::LinearMemoryKind>() != nullptr || layer.attention.as<nn::GatedSlotKind>() != nullptr;
      const double deviation = normed ? 0.5 : 0.1;
      check_module(
          layer, x, [&](const Var& in) { return layer.attention(in, in, sequence, {}); }, deviation);
    }
    if (!entry.causal) {
      nn::AttentionSettings causal = settings;
      causal.mask = ops::AttentionMask::causal;
      CHECK_THROWS_AS(nn::make_attention(choice, causal, RngKey{4}), ValueError);
      continue;
    }
    const nn::Attention fresh = nn::make_attention(choice, settings, RngKey{4});
    const Tensor before = x.to(DType::f32);
    Tensor after = before.clone();
    for (std::int64_t column = 0; column < width; ++column) after.mutable_data<float>()[4 * width + column] += 1.5f;
    const std::vector<double> once = fresh(before, before, sequence, {}).value().to_doubles();
    const std::vector<double> then = fresh(after, after, sequence, {}).value().to_doubles();
    for (std::size_t i = 0; i < 4 * width; ++i) CHECK(once[i] == then[i]);  // rows before the one that changed
    double moved = 0;
    for (std::size_t i = 4 * width; i < 7 * width; ++i) moved += std::fabs(once[i] - then[i]);
    CHECK(moved > 0);
    for (std::size_t i = 7 * width; i < once.size(); ++i) CHECK(once[i] == then[i]);  // other sequences
  }
  CHECK_THROWS_WITH(nn::AttentionChoice(nn::attention_kinds(), "sofmax"),
                    Catch::Matchers::Contains("did you mean \"softmax\""));
}

TEST_CASE("an embedding's gradient is sparse", "[layers]") {
  const auto layer = nn::Embedding::make({.count = 100, .width = 3}, RngKey{1});
  const Tensor ids = Tensor::from<std::int32_t>({7, 3, 7}, {3});
  const auto [value, gradients] = value_and_gradients([&] { return ops::sum(layer(ids, 2)); });
  const auto* rows = std::get_if<RowGrad>(gradients.find(layer.table.id()));
  REQUIRE(rows != nullptr);
  CHECK(rows->rows.to_doubles() == std::vector<double>{3, 7});
  CHECK(rows->values.to_doubles() == std::vector<double>{2, 2, 2, 4, 4, 4});
}

TEST_CASE("dropout and blocks are deterministic outside training", "[layers]") {
  const auto block = nn::TransformerBlock::make(
      {.attention = attention_choice(nn::attention_kinds(), "softmax", {{"attn_dropout_prob", 0.5}}),
       .settings = {.width = 4, .heads = 1},
       .hidden_dropout = 0.5},
      RngKey{4});
  const Offsets offsets = Offsets::single(6);
  const Tensor x = rows(6, 4, 6).to(DType::f32);
  const Tensor once = block(x, {offsets}, {.key = RngKey{1}}).value(),
               again = block(x, {offsets}, {.key = RngKey{2}}).value();
  CHECK(identical(once, again));
  const Tensor trained = block(x, {offsets}, {.training = true, .key = RngKey{1}}).value();
  CHECK_FALSE(identical(once, trained));
  CHECK(identical(trained, block(x, {offsets}, {.training = true, .key = RngKey{1}}).value()));
}

TEST_CASE("wrong sizes are refused", "[layers]") {
  CHECK_THROWS_AS(nn::Linear::make({.in = 0, .out = 4}, RngKey{1}), ValueError);
  CHECK_THROWS_AS(nn::make_attention({nn::attention_kinds(), "softmax"}, {.width = 5, .heads = 2}, RngKey{1}),
                  ValueError);
  const auto layer = nn::Linear::make({.in = 3, .out = 4}, RngKey{1});
  CHECK_THROWS_AS(layer(Tensor::zeros({2, 5})), ShapeError);
}

TEST_CASE("drop path leaves out whole sequences, whatever shard they are in", "[layers]") {
  const std::vector<std::int64_t> lengths(4000, 3);
  const Offsets offsets = Offsets::from_lengths(lengths);
  Tensor ones({offsets.total(), 2});
  ones.fill(1);
  const nn::DropPath path{0.25};
  const nn::Context context{.training = true, .key = RngKey{7}};
  const Tensor whole = path(Var(ones), offsets, context).value();
  double kept = 0;
  for (std::int64_t row = 0; row < offsets.total(); ++row) {
    for (const std::int64_t column : {0, 1}) {
      const float each = whole.data<float>()[2 * row + column], first = whole.data<float>()[row / 3 * 6];
      CHECK((each == first && (each == 0 || each == Approx(4.0 / 3))));
    }
    kept += whole.data<float>()[2 * row] > 0 ? 1 : 0;
  }
  CHECK(kept / static_cast<double>(offsets.total()) == Approx(0.75).margin(0.03));
  // The second half of the sequences as a shard of its own.
  const Offsets half = Offsets::from_lengths(std::vector<std::int64_t>(2000, 3));
  nn::Context second = context;
  second.first_row = half.total();
  const Tensor rest = path(Var(ones.slice(0, half.total(), offsets.total())), half, second).value();
  CHECK(rest.to_doubles() == whole.slice(0, half.total(), offsets.total()).to_doubles());
  CHECK(path(Var(ones), offsets, {}).value().to_doubles() == ones.to_doubles());
  CHECK_THROWS_WITH(nn::DropPath{1}(Var(ones), offsets, context), Catch::Matchers::Contains("a rate in [0, 1); got 1"));
}

}  // namespace layers_test
