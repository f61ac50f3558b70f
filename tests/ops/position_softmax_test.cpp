#include "tally/ops/attention/position_softmax_attention.h"

#include <catch2/catch.hpp>
#include <limits>

#include "tests/ops/attention_cases.h"

namespace position_softmax_test {

using namespace tally;
using namespace tally::testing;
using ops::AttentionMask;

namespace {

AttentionCall call(AttentionMask mask) {
  return [=](const Var& q, const Var& k, const Var& v, const Offsets& offsets) {
    return ops::position_softmax_attention(q, k, v, offsets, {.heads = 2, .mask = mask});
  };
}

std::span<const float> row(const Tensor& x, std::int64_t t) {
  return x.span<float>().subspan(static_cast<std::size_t>(t * x.dim(1)), static_cast<std::size_t>(x.dim(1)));
}

}  // namespace

TEST_CASE("what comes later does not change causal position softmax attention by a bit",
          "[position_softmax_attention]") {
  for (const std::int64_t kept : {1, 40, 64, 117}) {
    CHECK(is_causal(call(AttentionMask::causal), attention_case({200}, 16, 16), kept));
  }
}

TEST_CASE("a sequence of position softmax attention is the same bits alone and in company",
          "[position_softmax_attention]") {
  for (const AttentionMask mask : {AttentionMask::causal, AttentionMask::bidirectional}) {
    CHECK(is_independent_of_company(call(mask), attention_case({5, 0, 70, 1, 200, 33}, 16, 12)));
    CHECK(is_independent_of_company(call(mask), attention_case({70, 33}, 16, 12, 60)));
  }
}

TEST_CASE("position softmax attention of huge keys stays finite", "[position_softmax_attention]") {
  for (const AttentionMask mask : {AttentionMask::causal, AttentionMask::bidirectional}) {
    for (const double deviation : {1e2, 1e4, 1e8}) {
      const AttentionResults results = attend(call(mask), attention_case({150, 3}, 8, 6, deviation));
      for (const Tensor* each : {&results.y, &results.gq, &results.gk, &results.gv}) CHECK(all_finite(*each));
    }
  }
}

TEST_CASE("a key of position softmax attention that is no number reaches the rows that see it",
          "[position_softmax_attention]") {
  for (const float key : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    AttentionInputs in = attention_case({6}, 4, 4);
    in.k.mutable_data<float>()[2 * 4] = key;
    for (const AttentionMask mask : {AttentionMask::causal, AttentionMask::bidirectional}) {
      const std::vector<double> y = attend(call(mask), in).y.to_doubles();
      const std::size_t first = mask == AttentionMask::causal ? 8 : 0;
      for (std::size_t i = 0; i < 24; ++i) CHECK(std::isnan(y[i]) == (i >= first && i % 4 < 2));
    }
  }
}

TEST_CASE("keys that rise all the time are seen for what they are", "[position_softmax_attention]") {
  // The latest of them outweighs all others, whatever chunks they fall into: outputs are the row's own values.
  for (const double step : {1.0, 39.0, 41.0, 1000.0}) {
    AttentionInputs in = attention_case({150}, 1, 1);
    float *q = in.q.mutable_data<float>(), *k = in.k.mutable_data<float>();
    for (std::int64_t i = 0; i < 150; ++i) q[i] = 1, k[i] = static_cast<float>(step * static_cast<double>(i));
    const std::vector<double> y = ops::position_softmax_attention(in.q, in.k, in.v, in.offsets).value().to_doubles();
    const std::vector<double> v = in.v.to_doubles();
    double expected = v[0], total = 1;
    for (std::size_t i = 1; i < 150; ++i) {
      expected = (expected * total * std::exp(-step) + v[i]) / (total * std::exp(-step) + 1);
      total = total * std::exp(-step) + 1;
      CHECK(y[i] == Approx(expected).margin(1e-5));
    }
  }
}

TEST_CASE("the recurrent form of position softmax attention agrees with the parallel one",
          "[position_softmax_attention]") {
  const std::int64_t length = 300;
  for (const double deviation : {1.0, 60.0}) {
    // Six heads of queries read two of keys and values.
    const AttentionInputs in = attention_case({length}, 2 * 4, 2 * 3, deviation);
    const Tensor q = ops::sample_normal({length, 6 * 4}, 9).to(DType::f32);
    const Tensor whole =
        ops::position_softmax_attention(q, in.k, in.v, in.offsets, {.heads = 6, .key_heads = 2}).value();
    ops::PositionSoftmaxState state = ops::position_softmax_state(2, 4, 3);
    const std::size_t bytes = state.heap_bytes();
    Tensor steps(whole.shape());
    for (std::int64_t t = 0; t < length; ++t) {
      ops::position_softmax_step(state, row(q, t), row(in.k, t), row(in.v, t),
                                 steps.mutable_span<float>().subspan(static_cast<std::size_t>(t * 18), 18));
    }
    CHECK(largest_difference(whole, steps) < 2e-5);
    CHECK(state.heap_bytes() == bytes);
    std::vector<float> out(17);
    CHECK_THROWS_AS(ops::position_softmax_step(state, row(q, 0), row(in.k, 0), row(in.v, 0), out), ShapeError);
  }
  CHECK_THROWS_AS(ops::position_softmax_state(1, 0, 2), ValueError);
}

}  // namespace position_softmax_test
