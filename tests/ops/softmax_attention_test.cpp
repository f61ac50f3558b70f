#include "tally/ops/attention/softmax_attention.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/core/memory.h"
#include "tally/core/parallel.h"
#include "tally/core/simd.h"
#include "tally/ops/attention/softmax_attention_materialized.h"
#include "tally/ops/catalog.h"

namespace softmax_attention_test {

using namespace tally;
using ops::AttentionMask;
using ops::AttentionOptions;

namespace {

struct Inputs {
  Tensor q, k, v, cotangent;
  Offsets offsets;
};

struct Results {
  Tensor y, gq, gk, gv;
};

using Attention = Var (*)(const Var&, const Var&, const Var&, const Offsets&, const AttentionOptions&);

Inputs random_inputs(const std::vector<std::int64_t>& lengths, std::int64_t columns, std::int64_t value_columns,
                     DType dtype, double deviation = 1) {
  const std::int64_t rows = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  const auto normal = [&](std::int64_t width, std::uint64_t stream) {
    return ops::sample_normal({rows, width}, stream, deviation).to(dtype);
  };
  return {normal(columns, 1), normal(columns, 2), normal(value_columns, 3), normal(value_columns, 4),
          Offsets::from_lengths(lengths)};
}

Results run(Attention attention, const Inputs& in, const AttentionOptions& options) {
  Tape tape;
  const Var q = tape.input(in.q), k = tape.input(in.k), v = tape.input(in.v);
  Var y;
  {
    const Recording on(tape);
    y = attention(q, k, v, in.offsets, options);
  }
  const Tensor cotangent = in.cotangent;
  const Gradients gradients = tape.backward(std::span<const Var>(&y, 1), std::span<const Tensor>(&cotangent, 1));
  return {y.value(), gradients[q], gradients[k], gradients[v]};
}

bool same(const Results& a, const Results& b) {
  return identical(a.y, b.y) && identical(a.gq, b.gq) && identical(a.gk, b.gk) && identical(a.gv, b.gv);
}

/// Largest difference over all results, relative to the largest magnitude of each (at least 1: gradients may be zero).
double difference(const Results& a, const Results& b) {
  double worst = 0;
  const auto compare = [&](const Tensor& x, const Tensor& y) {
    const std::vector<double> vx = x.to_doubles(), vy = y.to_doubles();
    REQUIRE(vx.size() == vy.size());
    double largest = 1, apart = 0;
    for (std::size_t i = 0; i < vx.size(); ++i) {
      largest = std::max(largest, std::abs(vx[i]));
      apart = std::isfinite(vx[i] - vy[i]) ? std::max(apart, std::abs(vx[i] - vy[i])) : 1e300;
    }
    worst = std::max(worst, apart / largest);
  };
  compare(a.y, b.y);
  compare(a.gq, b.gq);
  compare(a.gk, b.gk);
  compare(a.gv, b.gv);
  return worst;
}

Results rows_of(const Results& all, std::int64_t begin, std::int64_t end) {
  const auto rows = [&](const Tensor& x) { return x.slice(0, begin, end).contiguous(); };
  return {rows(all.y), rows(all.gq), rows(all.gk), rows(all.gv)};
}

Inputs rows_of(const Inputs& all, std::int64_t begin, std::int64_t end, const Offsets& offsets) {
  const auto rows = [&](const Tensor& x) { return x.slice(0, begin, end).contiguous(); };
  return {rows(all.q), rows(all.k), rows(all.v), rows(all.cotangent), offsets};
}

std::vector<AttentionOptions> all_kinds(std::int64_t heads) {
  std::vector<AttentionOptions> kinds;
  for (const AttentionMask mask : {AttentionMask::causal, AttentionMask::bidirectional}) {
    for (const std::int64_t window : {0, 1, 37, 128, 129, 2000}) {
      for (const double rate : {0.0, 0.25}) {
        kinds.push_back({.heads = heads,
                         .mask = mask,
                         .window = window,
                         .dropout = {.rate = rate, .key = {9, 8}, .first_row = 1000}});
      }
    }
  }
  return kinds;
}

}  // namespace

TEST_CASE("fused and materialised attention agree", "[softmax_attention]") {
  for (const AttentionOptions& options : all_kinds(2)) {
    CAPTURE(options.mask == AttentionMask::causal, options.window, options.dropout.rate);
    // Lengths around the borders of blocks and tiles; the last ones are parallel inside.
    for (const std::vector<std::int64_t>& lengths :
         {std::vector<std::int64_t>{0, 1, 2, 9, 63, 64, 65, 0, 127, 128, 129}, std::vector<std::int64_t>{300},
          std::vector<std::int64_t>{3, 530}}) {
      const Inputs wide = random_inputs(lengths, 6, 10, DType::f64);
      CHECK(difference(run(ops::softmax_attention_materialized, wide, options),
                       run(ops::softmax_attention, wide, options)) < 1e-13);
      Inputs narrow = wide;
      for (Tensor* each : {&narrow.q, &narrow.k, &narrow.v, &narrow.cotangent}) *each = each->to(DType::f32);
      CHECK(difference(run(ops::softmax_attention_materialized, wide, options),
                       run(ops::softmax_attention, narrow, options)) < 3e-6);
    }
  }
}

TEST_CASE("what comes later does not change causal attention by a bit", "[softmax_attention]") {
  const std::int64_t length = 200, kept = 117;
  Inputs in = random_inputs({length}, 16, 16, DType::f32);
  const AttentionOptions options{.heads = 2, .dropout = {.rate = 0.1, .key = {1, 2}}};
  const Tensor before = run(ops::softmax_attention, in, options).y;
  Inputs changed = in;
  for (Tensor* each : {&changed.q, &changed.k, &changed.v}) {
    *each = each->clone();
    float* data = each->mutable_data<float>();
    for (std::int64_t i = kept * 16; i < length * 16; ++i) data[i] = 50 - data[i];
  }
  const Tensor after = run(ops::softmax_attention, changed, options).y;
  CHECK(identical(before.slice(0, 0, kept).contiguous(), after.slice(0, 0, kept).contiguous()));
  CHECK_FALSE(identical(before.slice(0, kept, kept + 1).contiguous(), after.slice(0, kept, kept + 1).contiguous()));

  // Rows that the latest cannot see do not learn from it either.
  Inputs late = in;
  late.cotangent = Tensor::zeros(in.cotangent.shape());
  late.cotangent.mutable_data<float>()[kept * 16 + 3] = 1;
  const Results results = run(ops::softmax_attention, late, options);
  const std::vector<double> gv = results.gv.to_doubles();
  for (std::size_t i = 0; i < gv.size(); ++i) {
    if (i >= (static_cast<std::size_t>(kept) + 1) * 16) REQUIRE(gv[i] == 0);
  }
}

TEST_CASE("a sequence alone gives what it gives inside a batch", "[softmax_attention]") {
  const std::vector<std::int64_t> lengths{5, 0, 70, 1, 200, 33};
  const Inputs in = random_inputs(lengths, 8, 12, DType::f32);
  for (const AttentionOptions& options : all_kinds(4)) {
    CAPTURE(options.mask == AttentionMask::causal, options.window, options.dropout.rate);
    const Results all = run(ops::softmax_attention, in, options);
    for (std::int64_t i = 0; i < in.offsets.count(); ++i) {
      const std::int64_t begin = in.offsets.at(i), end = in.offsets.at(i + 1);
      // Dropout is keyed by the row in the whole batch, so a shard that says where it begins draws the same mask.
      AttentionOptions shard = options;
      shard.dropout.first_row += static_cast<std::uint64_t>(begin);
      const Inputs alone = rows_of(in, begin, end, Offsets::single(end - begin));
      CHECK(same(rows_of(all, begin, end), run(ops::softmax_attention, alone, shard)));
    }
  }
}

TEST_CASE("dropout of attention drops the asked share and keeps the mean", "[softmax_attention]") {
  const std::int64_t length = 400;
  Inputs in = random_inputs({length}, 2, 1, DType::f64);
  in.q.fill(0);  // equal probabilities: an output counts what was kept
  in.v.fill(1);
  const AttentionOptions options{.mask = AttentionMask::bidirectional, .dropout = {.rate = 0.3, .key = {3, 4}}};
  const std::vector<double> y = run(ops::softmax_attention, in, options).y.to_doubles();
  const double mean = std::accumulate(y.begin(), y.end(), 0.0) / static_cast<double>(length);
  CHECK(mean == Approx(1).margin(0.01));  // deviation of the mean: sqrt(0.3 / 0.7) / 400 = 0.0016
  AttentionOptions other = options;
  other.dropout.key = {3, 5};
  CHECK(run(ops::softmax_attention, in, other).y.to_doubles() != y);
}

TEST_CASE("attention gives the same bits with any number of threads", "[softmax_attention]") {
  const Inputs in = random_inputs({1, 900, 9, 0, 40, 7, 600, 1100}, 16, 8, DType::f32);
  const int before = num_threads();
  for (const AttentionMask mask : {AttentionMask::causal, AttentionMask::bidirectional}) {
    for (const std::int64_t window : {0, 150}) {
      const AttentionOptions options{.heads = 2, .mask = mask, .window = window, .dropout = {.rate = 0.1}};
      set_num_threads(1);
      const Results expected = run(ops::softmax_attention, in, options);
      for (const int threads : {2, 8}) {
        set_num_threads(threads);
        CHECK(same(expected, run(ops::softmax_attention, in, options)));
      }
    }
  }
  set_num_threads(before);
}

TEST_CASE("attention on every SIMD target", "[softmax_attention]") {
  const Inputs in = random_inputs({9, 1, 70, 260}, 24, 16, DType::f32);
  Inputs wide = in;
  for (Tensor* each : {&wide.q, &wide.k, &wide.v, &wide.cotangent}) *each = each->to(DType::f64);
  const AttentionOptions options{.heads = 2, .dropout = {.rate = 0.2}};
  const Results expected = run(ops::softmax_attention_materialized, wide, options);
  for (const std::string& target : simd_targets()) {
    CAPTURE(target);
    set_simd_target(target);
    CHECK(difference(expected, run(ops::softmax_attention, in, options)) < 2e-6);
  }
  set_simd_target("");
}

TEST_CASE("attention reads slices of one projection where they lie", "[softmax_attention]") {
  const std::int64_t rows = 150, width = 8;
  const Tensor packed = ops::sample_normal({rows, 3 * width}, 1);
  const auto part = [&](std::int64_t i) { return packed.slice(1, i * width, (i + 1) * width); };
  const Tensor cotangent = ops::sample_normal({rows, width}, 2);
  const Inputs slices{part(0), part(1), part(2), cotangent, Offsets::from_lengths(std::vector<std::int64_t>{100, 50})};
  Inputs copies = slices;
  for (Tensor* each : {&copies.q, &copies.k, &copies.v}) *each = each->contiguous();
  CHECK(same(run(ops::softmax_attention, slices, {.heads = 2}), run(ops::softmax_attention, copies, {.heads = 2})));
  CHECK(difference(run(ops::softmax_attention_materialized, slices, {.heads = 2}),
                   run(ops::softmax_attention, copies, {.heads = 2})) < 1e-13);
}

TEST_CASE("extreme scores stay finite", "[softmax_attention]") {
  const Inputs in = random_inputs({80, 3}, 8, 4, DType::f32, 60);  // scores of about +-10^4 and more
  for (const AttentionMask mask : {AttentionMask::causal, AttentionMask::bidirectional}) {
    const Results results = run(ops::softmax_attention, in, {.mask = mask, .scale = 1});
    CHECK(all_finite(results.y));
    CHECK(all_finite(results.gq));
    CHECK(all_finite(results.gk));
    CHECK(all_finite(results.gv));
  }
}

TEST_CASE("a score that is not a number is not hidden", "[softmax_attention]") {
  Inputs in = random_inputs({6}, 4, 4, DType::f32);
  in.k.mutable_data<float>()[2 * 4] = std::nanf("");
  const std::vector<double> y = run(ops::softmax_attention, in, {}).y.to_doubles();
  for (std::size_t i = 0; i < 24; ++i) CHECK(std::isnan(y[i]) == (i >= 8));
}

TEST_CASE("only the gradients that are wanted are computed", "[softmax_attention]") {
  const Inputs in = random_inputs({70, 4}, 6, 6, DType::f64);
  const Results all = run(ops::softmax_attention, in, {});
  for (int wanted = 0; wanted < 3; ++wanted) {
    Tape tape;
    Var inputs[3] = {in.q, in.k, in.v};
    inputs[wanted] = tape.input(inputs[wanted].value());
    Var y;
    {
      const Recording on(tape);
      y = ops::softmax_attention(inputs[0], inputs[1], inputs[2], in.offsets);
    }
    const Gradients gradients = tape.backward(std::span<const Var>(&y, 1), std::span<const Tensor>(&in.cotangent, 1));
    CHECK(identical(gradients[inputs[wanted]], wanted == 0 ? all.gq : wanted == 1 ? all.gk : all.gv));
  }
}

TEST_CASE("attention over a long sequence needs no memory for scores", "[softmax_attention]") {
  const std::int64_t length = 2048, width = 16;
  const Inputs in = random_inputs({length}, width, width, DType::f32);
  const MemoryScope scope;
  run(ops::softmax_attention, in, {});
  // Output, three gradients, two columns of sums, and tiles; the scores would be 16 MiB.
  CHECK(scope.peak() < std::int64_t{2} << 20);
}

}  // namespace softmax_attention_test
