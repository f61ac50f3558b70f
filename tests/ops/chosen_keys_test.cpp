// Attentions that choose their keys: by hashing, sorting, projecting, or by distance.
#include <catch2/catch.hpp>

#include "tally/core/blas.h"
#include "tally/ops/linear_attention.h"
#include "tally/ops/linformer_attention.h"
#include "tally/ops/lsh_attention.h"
#include "tally/ops/sinkhorn_attention.h"
#include "tests/ops/attention_cases.h"

using namespace tally;
using namespace tally::testing;
using ops::AttentionMask;

namespace {

Tensor normal(const Shape& shape, std::uint64_t stream) { return ops::sample_normal(shape, stream).to(DType::f32); }

AttentionCall lsh(const Tensor& rotations, const ops::LshAttentionOptions& options) {
  return [=](const Var& q, const Var&, const Var& v, const Offsets& offsets) {
    return ops::lsh_attention(q, v, rotations, offsets, options);
  };
}

AttentionCall sinkhorn(const Tensor& logits, const ops::SinkhornAttentionOptions& options) {
  return [=](const Var& q, const Var& k, const Var& v, const Offsets& offsets) {
    return ops::sinkhorn_attention(q, k, v, logits, offsets, options);
  };
}

}  // namespace

TEST_CASE("what comes later does not change causal attention within hash buckets by a bit", "[chosen_keys]") {
  for (const std::int64_t rounds : {1, 2}) {
    const AttentionCall call = lsh(normal({rounds, 2, 8}, 9), {.heads = 2, .chunk = 5});
    for (const std::int64_t kept : {1, 30, 117}) {
      CHECK(is_causal(call, attention_case({200}, 16, 12), kept));
      CHECK(is_causal(call, attention_case({200}, 16, 12), kept, 1000));
    }
  }
}

TEST_CASE("what comes later does not change causal attention to sorted blocks by a bit", "[chosen_keys]") {
  const ops::SinkhornAttentionOptions options{.heads = 2, .block = 16};
  const Tensor logits = normal({13, 13}, 9);
  for (const std::int64_t kept : {1, 16, 33, 190}) {
    CHECK(is_causal(sinkhorn(logits, options), attention_case({200}, 16, 12), kept));
    CHECK(is_causal(sinkhorn(logits, options), attention_case({200}, 16, 12), kept, 1000));
  }
  // Logits of later blocks reach no earlier row, in spite of the normalised columns.
  Tensor changed = logits.clone();
  for (std::int64_t i = 7 * 13; i < changed.numel(); ++i) changed.mutable_data<float>()[i] *= -3;
  const AttentionInputs in = attention_case({200}, 16, 12);
  const Tensor before = attend(sinkhorn(logits, options), in).y, after = attend(sinkhorn(changed, options), in).y;
  CHECK(same_rows(before, after, 0, 7 * 16));
  CHECK_FALSE(same_rows(before, after, 7 * 16, 200));
}

TEST_CASE("a sequence's chosen keys are the same bits alone and in company", "[chosen_keys]") {
  const AttentionInputs in = attention_case({5, 0, 70, 1, 200, 33}, 16, 12);
  for (const AttentionMask mask : {AttentionMask::causal, AttentionMask::bidirectional}) {
    CHECK(is_independent_of_company(lsh(normal({2, 2, 8}, 9), {.heads = 2, .mask = mask, .chunk = 5}), in));
  }
  const Tensor e = normal({7, 200}, 10), f = normal({7, 200}, 11);
  CHECK(is_independent_of_company(
      [&](const Var& q, const Var& k, const Var& v, const Offsets& offsets) {
        return ops::linformer_attention(q, k, v, e, f, offsets, {.heads = 2});
      },
      in));
}

TEST_CASE("a certain permutation shows exactly one other block", "[chosen_keys]") {
  // Three blocks of 4 rows; the third block's logits say the first. What the second holds then has no part in it.
  const ops::SinkhornAttentionOptions options{.block = 4, .iterations = 0};
  const Tensor logits = Tensor::from<float>({0, 0, 0, 0, 0, 0, 500, 0, 0}, {3, 3});
  const AttentionInputs in = attention_case({12}, 6, 5);
  AttentionInputs other = in;
  for (Tensor* each : {&other.k, &other.v}) {
    *each = each->clone();
    for (std::int64_t i = 4 * each->dim(1); i < 8 * each->dim(1); ++i) each->mutable_data<float>()[i] += 2;
  }
  const Tensor y = attend(sinkhorn(logits, options), in).y, changed = attend(sinkhorn(logits, options), other).y;
  CHECK(same_rows(y, changed, 8, 12));
  CHECK_FALSE(same_rows(y, changed, 4, 8));
}

TEST_CASE("attentions of linear time do twice the products for twice the rows", "[chosen_keys]") {
  const Tensor directions = normal({24, 8}, 9), rotations = normal({1, 16, 8}, 9);
  const Tensor projection = normal({16, 8192}, 10);
  using Kind = std::pair<const char*, AttentionCall>;
  const std::vector<Kind> kinds = {
      {"window", [](const Var& q, const Var& k, const Var& v,
                    const Offsets& o) { return ops::softmax_attention(q, k, v, o, {.window = 100}); }},
      {"bidirectional window",
       [](const Var& q, const Var& k, const Var& v, const Offsets& o) {
         return ops::softmax_attention(q, k, v, o, {.mask = AttentionMask::bidirectional, .window = 100});
       }},
      {"elu", [](const Var& q, const Var& k, const Var& v,
                 const Offsets& o) { return ops::linear_attention(q, k, v, {}, o); }},
      {"positive random",
       [&](const Var& q, const Var& k, const Var& v, const Offsets& o) {
         return ops::linear_attention(q, k, v, directions, o, {.feature_map = ops::FeatureMap::positive_random});
       }},
      {"linformer", [&](const Var& q, const Var& k, const Var& v,
                        const Offsets& o) { return ops::linformer_attention(q, k, v, projection, projection, o); }},
      {"lsh", lsh(rotations, {.chunk = 32})},
  };
  for (const auto& [name, call] : kinds) {
    const auto operations = [&call = call](std::int64_t length) {
      const AttentionInputs in = attention_case({length}, 8, 8);
      const std::uint64_t before = blas::operations();
      attend(call, in);
      return static_cast<double>(blas::operations() - before);
    };
    INFO(name);
    const double shorter = operations(4096), longer = operations(8192);
    CHECK(shorter > 0);
    // Slightly above 2 where the first chunks have fewer keys; quadratic would be 4.
    CHECK(longer / shorter < 2.2);
  }
}
