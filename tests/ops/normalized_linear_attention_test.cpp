#include "tally/ops/attention/normalized_linear_attention.h"

#include <catch2/catch.hpp>

#include "tests/ops/attention_cases.h"

namespace normalized_linear_attention_test {

using namespace tally;
using namespace tally::testing;
using ops::AttentionMask;
using ops::FeatureMap;
using ops::NormalizedLinearAttentionOptions;

namespace {

AttentionCall call(const NormalizedLinearAttentionOptions& options, const Tensor& directions = {}) {
  return [=](const Var& q, const Var& k, const Var& v, const Offsets& offsets) {
    return ops::normalized_linear_attention(q, k, v, directions, offsets, options);
  };
}

struct Kind {
  NormalizedLinearAttentionOptions options;
  Tensor directions;
};

/// Both feature maps, for two heads of this width.
std::vector<Kind> kinds(std::int64_t width, AttentionMask mask = AttentionMask::causal) {
  return {{{.heads = 2, .mask = mask}, {}},
          {{.heads = 2, .mask = mask, .feature_map = FeatureMap::positive_random},
           ops::sample_normal({3 * width, width}, 9).to(DType::f32)}};
}

}  // namespace

TEST_CASE("what comes later does not change causal normalized linear attention by a bit",
          "[normalized_linear_attention]") {
  for (const Kind& kind : kinds(8)) {
    for (const std::int64_t kept : {1, 40, 64, 117}) {
      CHECK(is_causal(call(kind.options, kind.directions), attention_case({200}, 16, 16), kept));
      CHECK(is_causal(call(kind.options, kind.directions), attention_case({200}, 16, 16), kept, 1000));
    }
  }
}

TEST_CASE("a sequence of normalized linear attention is the same bits alone and in company",
          "[normalized_linear_attention]") {
  for (const AttentionMask mask : {AttentionMask::causal, AttentionMask::bidirectional}) {
    for (const Kind& kind : kinds(8, mask)) {
      CHECK(is_independent_of_company(call(kind.options, kind.directions),
                                      attention_case({5, 0, 70, 1, 200, 33}, 16, 12)));
    }
  }
}

TEST_CASE("the recurrent form of normalized linear attention agrees with the parallel one",
          "[normalized_linear_attention]") {
  const std::int64_t length = 300, width = 8, value_width = 6, heads = 2;
  for (const double deviation : {1.0, 6.0}) {
    const AttentionInputs in = attention_case({length}, heads * width, heads * value_width, deviation);
    for (const Kind& kind : kinds(width)) {
      const std::int64_t features = kind.directions.defined() ? kind.directions.dim(0) : width;
      const Tensor whole =
          ops::normalized_linear_attention(in.q, in.k, in.v, kind.directions, in.offsets, kind.options).value();
      ops::NormalizedLinearAttentionState state = ops::normalized_linear_attention_state(heads, features, value_width);
      const std::size_t numbers = state.sums.size();
      Tensor steps(whole.shape());
      const auto row = [](const Tensor& x, std::int64_t t) {
        return x.span<float>().subspan(static_cast<std::size_t>(t * x.dim(1)), static_cast<std::size_t>(x.dim(1)));
      };
      for (std::int64_t t = 0; t < length; ++t) {
        const std::span<float> out = steps.mutable_span<float>().subspan(static_cast<std::size_t>(t * whole.dim(1)),
                                                                         static_cast<std::size_t>(whole.dim(1)));
        ops::normalized_linear_attention_step(state, row(in.q, t), row(in.k, t), row(in.v, t), kind.directions, out,
                                              kind.options);
      }
      CHECK(largest_difference(whole, steps) < 2e-5);
      CHECK(state.sums.size() == numbers);
    }
  }
}

TEST_CASE("states of two histories merge into that of both", "[normalized_linear_attention]") {
  const std::int64_t length = 60, width = 4, heads = 2;
  const AttentionInputs in = attention_case({length}, heads * width, heads * width, 3);
  const Kind kind = {{.heads = heads, .feature_map = FeatureMap::positive_random},
                     ops::sample_normal({9, width}, 9).to(DType::f32)};
  const auto state_of = [&](std::int64_t begin, std::int64_t end) {
    ops::NormalizedLinearAttentionState state = ops::normalized_linear_attention_state(heads, 9, width);
    std::vector<float> out(static_cast<std::size_t>(heads * width));
    for (std::int64_t t = begin; t < end; ++t) {
      const auto row = [&](const Tensor& x) {
        return x.span<float>().subspan(static_cast<std::size_t>(t * heads * width),
                                       static_cast<std::size_t>(heads * width));
      };
      ops::normalized_linear_attention_step(state, row(in.q), row(in.k), row(in.v), kind.directions, out, kind.options);
    }
    return state;
  };
  const ops::NormalizedLinearAttentionState all = state_of(0, length),
                                            merged = ops::merge(state_of(0, 25), state_of(25, length));
  CHECK(merged.reference == all.reference);
  for (std::size_t i = 0; i < all.sums.size(); ++i) CHECK(merged.sums[i] == Approx(all.sums[i]).margin(1e-5));
  // With an empty history nothing changes.
  const ops::NormalizedLinearAttentionState same =
      ops::merge(all, ops::normalized_linear_attention_state(heads, 9, width));
  CHECK(same.sums == all.sums);
  CHECK_THROWS_AS(ops::merge(all, ops::normalized_linear_attention_state(heads, 8, width)), ShapeError);
}

TEST_CASE("linear attention of huge queries and keys stays finite", "[normalized_linear_attention]") {
  for (const AttentionMask mask : {AttentionMask::causal, AttentionMask::bidirectional}) {
    for (const Kind& kind : kinds(4, mask)) {
      for (const double deviation : {1e2, 1e4, 1e8}) {
        const AttentionResults results =
            attend(call(kind.options, kind.directions), attention_case({150, 3}, 8, 6, deviation));
        CHECK(all_finite(results.y));
        CHECK(all_finite(results.gq));
        CHECK(all_finite(results.gk));
        CHECK(all_finite(results.gv));
      }
    }
  }
}

TEST_CASE("a number that is none reaches the rows that see it", "[normalized_linear_attention]") {
  AttentionInputs in = attention_case({6}, 4, 4);
  in.k.mutable_data<float>()[2 * 4] = std::nanf("");
  for (const Kind& kind : kinds(2)) {
    const std::vector<double> y = attend(call(kind.options, kind.directions), in).y.to_doubles();
    for (std::size_t i = 0; i < 24; ++i) CHECK(std::isnan(y[i]) == (i >= 8 && i % 4 < 2));
  }
}

}  // namespace normalized_linear_attention_test
