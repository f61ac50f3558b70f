#include "tally/ops/attention/pointwise_attention.h"

#include <catch2/catch.hpp>

#include "tests/ops/attention_cases.h"

namespace pointwise_attention_test {

using namespace tally;
using namespace tally::testing;
using ops::AttentionMask;

namespace {

AttentionCall call(AttentionMask mask) {
  return [=](const Var& q, const Var& k, const Var& v, const Offsets& offsets) {
    return ops::pointwise_attention(q, k, v, offsets, {.heads = 2, .mask = mask});
  };
}

}  // namespace

TEST_CASE("what comes later does not change causal pointwise attention by a bit", "[pointwise_attention]") {
  for (const std::int64_t kept : {1, 40, 64, 117}) {
    CHECK(is_causal(call(AttentionMask::causal), attention_case({200}, 16, 16), kept));
  }
}

TEST_CASE("a sequence of pointwise attention is the same bits alone and in company", "[pointwise_attention]") {
  for (const AttentionMask mask : {AttentionMask::causal, AttentionMask::bidirectional}) {
    CHECK(is_independent_of_company(call(mask), attention_case({5, 0, 70, 1, 200, 33}, 16, 12)));
  }
}

TEST_CASE("a row of pointwise attention that sees nothing like it stays near zero", "[pointwise_attention]") {
  // A softmax would give the mean of the values, here 1.
  const Tensor q = Tensor::full({50, 4}, 10, DType::f32), k = Tensor::full({50, 4}, -10, DType::f32),
               v = Tensor::full({50, 4}, 1, DType::f32);
  for (const double y : ops::pointwise_attention(q, k, v, Offsets::single(50)).value().to_doubles()) {
    CHECK(std::abs(y) < 1e-30);
  }
}

}  // namespace pointwise_attention_test
