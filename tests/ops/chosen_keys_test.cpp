// Attentions that choose their keys: by hashing, sorting, projecting, or by distance.
#include <catch2/catch.hpp>

#include "tally/core/blas.h"
#include "tally/ops/attention/linformer_attention.h"
#include "tally/ops/attention/lsh_attention.h"
#include "tally/ops/attention/normalized_linear_attention.h"
#include "tally/ops/attention/sinkhorn_attention.h"
#include "tests/ops/attention_cases.h"

namespace chosen_keys_test {

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

TEST_CASE("rows that see only themselves in several rounds keep every digit in f32", "[chosen_keys]") {
  // Buckets of one row: the probabilities of its copies are 1 / rounds each, at a score of -1000.
  for (const std::int64_t rounds : {1, 2, 3, 5, 8}) {
    for (const double magnitude : {1.0, 30.0}) {
      Tensor rotations({rounds, 1, 2}, DType::f32);
      for (std::int64_t r = 0; r < rounds; ++r) {
        rotations.mutable_data<float>()[2 * r] = 1;
        rotations.mutable_data<float>()[2 * r + 1] = static_cast<float>(-0.1 - 0.01 * static_cast<double>(r));
      }
      AttentionInputs in = attention_case({2}, 2, 2);
      in.q = Tensor::from<float>({static_cast<float>(magnitude), 0, 0, static_cast<float>(magnitude)}, {2, 2});
      in.v.fill(1);
      in.cotangent.fill(1);
      const AttentionResults found = attend(lsh(rotations, {}), in);
      INFO(rounds << " rounds");
      for (const double each : found.gv.to_doubles()) CHECK(std::fabs(each - 1) <= 4 * 1.2e-7);
      for (const double each : found.y.to_doubles()) CHECK(std::fabs(each - 1) <= 4 * 1.2e-7);
      for (const double each : found.gq.to_doubles()) CHECK(std::fabs(each) <= 1e-6);
    }
  }
}

TEST_CASE("large scores cost no digits of the probabilities in backward", "[chosen_keys]") {
  // Every key scores the same large number, so that probabilities are equal and gradients of values known.
  const Tensor logits = Tensor::zeros({2, 2});
  using Kind = std::pair<const char*, AttentionCall>;
  const std::vector<Kind> kinds = {
      {"softmax",
       [](const Var& q, const Var& k, const Var& v, const Offsets& o) {
         return ops::softmax_attention(q, k, v, o, {.mask = AttentionMask::bidirectional});
       }},
      {"sinkhorn", sinkhorn(logits, {.mask = AttentionMask::bidirectional, .block = 4})},
  };
  for (const auto& [name, call] : kinds) {
    for (const double size : {10.0, 55.0, 300.0}) {
      AttentionInputs in = attention_case({8}, 4, 3);
      in.q.fill(size);
      in.k.fill(size / 3);
      in.cotangent.fill(1);
      const AttentionResults found = attend(call, in);
      INFO(name << ' ' << size);
      double total = 0;
      for (const double each : found.gv.to_doubles()) {
        CHECK(std::fabs(each - 1) <= 4 * 1.2e-7 * 4);
        total += each;
      }
      CHECK(total == Approx(24).epsilon(1e-6));
    }
  }
}

TEST_CASE("rows that pad a short block take no part in sorted blocks", "[chosen_keys]") {
  // Attention averages values: ones give ones, whatever is missing at the end of a sequence.
  const ops::SinkhornAttentionOptions both{.mask = AttentionMask::bidirectional};
  for (const AttentionMask mask : {AttentionMask::bidirectional, AttentionMask::causal}) {
    for (const std::int64_t block : {1, 2, 3, 5, 64}) {
      const std::vector<std::int64_t> lengths{1, 2, 5, 0, 7, 9, 4};
      AttentionInputs in = attention_case(lengths, 4, 3, 1, DType::f64);
      in.v.fill(1);
      const std::int64_t blocks = ops::sinkhorn_blocks(in.offsets, block);
      const Tensor logits = ops::sample_normal({blocks, 9}, 20);
      INFO("blocks of " << block);
      for (const double each : attend(sinkhorn(logits, {.mask = mask, .block = block}), in).y.to_doubles()) {
        CHECK(each == Approx(1).epsilon(1e-12));
      }
    }
  }
  // A single row by itself, with keys of its own, sees itself alone.
  AttentionInputs alone = attention_case({1}, 2, 2, 1, DType::f64);
  const AttentionResults found = attend(sinkhorn(Tensor::zeros({1, 1}, DType::f64), both), alone);
  CHECK(found.y.to_doubles() == alone.v.to_doubles());
  for (std::int64_t i = 0; i < 2; ++i) {
    CHECK(found.gv.data<double>()[i] == Approx(alone.cotangent.data<double>()[i]).epsilon(1e-14));
  }
  // All weight on the short block: the rows that it lacks are mixtures of nothing, and absent.
  AttentionInputs in = attention_case({5}, 2, 2, 1, DType::f64);
  in.v.fill(1);
  Tensor certain = Tensor::zeros({2, 2}, DType::f64);
  for (const std::int64_t i : {1, 3}) certain.mutable_data<double>()[i] = 1e5;
  const AttentionResults sharp =
      attend(sinkhorn(certain, {.mask = AttentionMask::bidirectional, .block = 4, .iterations = 0}), in);
  for (const double each : sharp.y.to_doubles()) CHECK(each == Approx(1).epsilon(1e-12));
  for (const Tensor* each : {&sharp.gq, &sharp.gk, &sharp.gv}) CHECK(all_finite(*each));
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
                 const Offsets& o) { return ops::normalized_linear_attention(q, k, v, {}, o); }},
      {"positive random",
       [&](const Var& q, const Var& k, const Var& v, const Offsets& o) {
         return ops::normalized_linear_attention(q, k, v, directions, o,
                                                 {.feature_map = ops::FeatureMap::positive_random});
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

}  // namespace chosen_keys_test
