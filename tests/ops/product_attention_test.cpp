#include "tally/ops/attention/product_attention.h"

#include <catch2/catch.hpp>

#include "tests/ops/attention_cases.h"

using namespace tally;
using namespace tally::testing;
using ops::AttentionMask;

namespace {

AttentionCall call(AttentionMask mask) {
  return [=](const Var& q, const Var& k, const Var& v, const Offsets& offsets) {
    return ops::product_attention(q, k, v, offsets, {.heads = 2, .mask = mask});
  };
}

}  // namespace

TEST_CASE("what comes later does not change causal product attention by a bit", "[product_attention]") {
  for (const std::int64_t kept : {1, 40, 64, 117}) {
    CHECK(is_causal(call(AttentionMask::causal), attention_case({200}, 16, 16), kept));
  }
}

TEST_CASE("a sequence of product attention is the same bits alone and in company", "[product_attention]") {
  for (const AttentionMask mask : {AttentionMask::causal, AttentionMask::bidirectional}) {
    CHECK(is_independent_of_company(call(mask), attention_case({5, 0, 70, 1, 200, 33}, 16, 12)));
  }
}
