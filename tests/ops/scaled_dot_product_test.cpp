#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/core/memory.h"
#include "tally/core/parallel.h"
#include "tally/core/simd.h"
#include "tally/ops/attention/scaled_dot_product_attention.h"
#include "tally/ops/catalog.h"

namespace scaled_dot_product_test {

using namespace tally;
using ops::AttentionMask;
using ops::ScaledDotProductOptions;
using ops::ScoreTables;

namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();

/// A call, and its result with the gradients of q, k, v and the bias.
struct General {
  Offsets offsets, key_offsets;
  Tensor q, k, v, bias, cotangent;
  ScaledDotProductOptions options = {};
  ScoreTables tables = {};

  std::vector<Tensor> run() const {
    Tape tape;
    const Var inputs[] = {tape.input(q), tape.input(k), tape.input(v), bias.defined() ? tape.input(bias) : Var()};
    ScoreTables given = tables;
    given.bias = inputs[3];
    Var y;
    {
      const Recording on(tape);
      y = ops::scaled_dot_product_attention(inputs[0], inputs[1], inputs[2], offsets, key_offsets, options, given);
    }
    const Gradients gradients = tape.backward(std::span<const Var>(&y, 1), std::span<const Tensor>(&cotangent, 1));
    std::vector<Tensor> results{y.value(), gradients[inputs[0]], gradients[inputs[1]], gradients[inputs[2]]};
    if (bias.defined()) results.push_back(gradients[inputs[3]]);
    return results;
  }
};

General general(const std::vector<std::int64_t>& lengths, const std::vector<std::int64_t>& key_lengths, DType dtype,
                std::int64_t heads = 1, std::int64_t key_heads = 1, std::int64_t width = 8) {
  const auto rows = [](const std::vector<std::int64_t>& each) {
    return std::accumulate(each.begin(), each.end(), std::int64_t{0});
  };
  const auto normal = [&](std::int64_t count, std::int64_t columns, std::uint64_t stream) {
    return ops::sample_normal({count, columns}, stream).to(dtype);
  };
  return {Offsets::from_lengths(lengths),
          Offsets::from_lengths(key_lengths),
          normal(rows(lengths), heads * width, 1),
          normal(rows(key_lengths), key_heads * width, 2),
          normal(rows(key_lengths), key_heads * width, 3),
          {},
          normal(rows(lengths), heads * width, 4),
          {.heads = heads, .key_heads = key_heads}};
}

void check_near(const Tensor& a, const Tensor& b, double tolerance) {
  REQUIRE(a.shape() == b.shape());
  const std::vector<double> x = a.to_doubles(), y = b.to_doubles();
  double largest = 1, apart = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    largest = std::max(largest, std::abs(y[i]));
    apart = std::max(apart, std::abs(x[i] - y[i]));
  }
  CHECK(apart <= tolerance * largest);
}

}  // namespace

TEST_CASE("queries to their own sequence are softmax attention", "[scaled_dot_product]") {
  for (const AttentionMask mask : {AttentionMask::causal, AttentionMask::bidirectional}) {
    for (const std::int64_t window : {0, 5}) {
      General call = general({70, 0, 1, 150}, {70, 0, 1, 150}, DType::f64, 2, 2);
      call.options.mask = mask;
      if (window > 0) call.options.left_window = call.options.right_window = window - 1;
      const std::vector<Tensor> got = call.run();
      Tape tape;
      const Var q = tape.input(call.q), k = tape.input(call.k), v = tape.input(call.v);
      Var y;
      {
        const Recording on(tape);
        y = ops::softmax_attention(q, k, v, call.offsets, {.heads = 2, .mask = mask, .window = window});
      }
      const Gradients gradients =
          tape.backward(std::span<const Var>(&y, 1), std::span<const Tensor>(&call.cotangent, 1));
      check_near(got[0], y.value(), 1e-13);
      check_near(got[1], gradients[q], 1e-13);
      check_near(got[2], gradients[k], 1e-13);
      check_near(got[3], gradients[v], 1e-13);
    }
  }
}

TEST_CASE("grouped heads are heads of repeated keys and values", "[scaled_dot_product]") {
  const General grouped = general({5, 130}, {7, 90}, DType::f64, 6, 2, 4);
  General plain = grouped;
  plain.options.key_heads = 6;
  const auto repeated = [](const Tensor& x) {
    Tensor all({x.dim(0), 24}, x.dtype());
    for (std::int64_t i = 0; i < all.numel(); ++i) {
      const std::int64_t head = i % 24 / 4;
      all.mutable_data<double>()[i] = x.data<double>()[i / 24 * 8 + head / 3 * 4 + i % 4];
    }
    return all;
  };
  plain.k = repeated(grouped.k), plain.v = repeated(grouped.v);
  const std::vector<Tensor> a = grouped.run(), b = plain.run();
  check_near(a[0], b[0], 1e-14);
  check_near(a[1], b[1], 1e-14);
}

TEST_CASE("a key that is not seen may be anything, and a query that sees none gives zeros", "[scaled_dot_product]") {
  General call = general({3}, {4}, DType::f32);
  call.options.mask = AttentionMask::bidirectional;
  Tensor visible = Tensor::zeros({1, 1, 3, 4}, DType::u8);
  for (const int i : {0, 1, 3}) visible.mutable_data<std::uint8_t>()[i] = 1;   // query 0 does not see key 2
  for (const int i : {8, 9, 11}) visible.mutable_data<std::uint8_t>()[i] = 1;  // nor does query 2, and 1 sees none
  const std::vector<Tensor> before = [&] {
    General plain = call;
    plain.tables.visible = visible;
    return plain.run();
  }();
  for (int c = 0; c < 8; ++c) call.k.mutable_data<float>()[16 + c] = c == 0 ? NAN : 1e30F;
  General masked = call, biased = call;
  masked.tables.visible = visible;
  biased.bias = Tensor({1, 1, 3, 4});
  for (int i = 0; i < 12; ++i)
    biased.bias.mutable_data<float>()[i] = visible.data<std::uint8_t>()[i] != 0 ? 0.0F : kHidden;
  for (const General& each : {masked, biased}) {
    const std::vector<Tensor> results = each.run();
    CHECK(identical(results[0], before[0]));
    CHECK(all_finite(results[2]));
    for (int c = 0; c < 8; ++c) CHECK(results[0].data<float>()[8 + c] == 0);
  }
  // One that is seen is not hidden.
  visible.mutable_data<std::uint8_t>()[2] = 1;
  masked.tables.visible = visible;
  CHECK(std::isnan(masked.run()[0].data<float>()[0]));
}

TEST_CASE("general attention gives the same bits with any number of threads", "[scaled_dot_product]") {
  General call = general({1, 300, 9, 0, 40, 7, 200}, {5, 90, 9, 3, 0, 300, 100}, DType::f32, 4, 2);
  call.options.mask = AttentionMask::bidirectional;
  const int before = num_threads();
  for (const Shape& shape : {Shape{}, Shape{1, 1, 300, 300}, Shape{7, 1, 1, 300}, Shape{7, 4, 300, 1}}) {
    call.bias = shape.rank() == 0 ? Tensor() : ops::sample_normal(shape, 5).to(DType::f32);
    set_num_threads(1);
    const std::vector<Tensor> expected = call.run();
    for (const int threads : {2, 8}) {
      set_num_threads(threads);
      const std::vector<Tensor> got = call.run();
      for (std::size_t i = 0; i < got.size(); ++i) CHECK(identical(got[i], expected[i]));
    }
  }
  set_num_threads(before);
}

TEST_CASE("general attention needs memory for a tile of scores alone", "[scaled_dot_product]") {
  const General call = general({2048}, {2048}, DType::f32, 2, 1);
  const MemoryScope scope;
  call.run();
  // The scores of a head would be 16 MiB, those of 64 rows are 0.5.
  CHECK(scope.peak() < std::int64_t{3} << 20);
}

TEST_CASE("scores are those that attention weighs values with", "[scaled_dot_product]") {
  const General call = general({3, 2}, {4, 5}, DType::f64, 2, 1, 3);
  const Tensor p =
      ops::attention_scores(call.q, call.k, call.offsets, call.key_offsets, ops::ScoresAt::probabilities, call.options);
  REQUIRE(p.numel() == 2 * (3 * 4 + 2 * 5));
  const Tensor y = call.run()[0];
  // The second sequence's second head and query: rows 3 + 1 of y and 4 ... of v.
  const double* row = p.data<double>() + 2 * 12 + 3 * 5;
  for (int c = 0; c < 3; ++c) {
    double sum = 0;
    for (int j = 0; j < 5; ++j) sum += row[j] * call.v.data<double>()[(4 + j) * 3 + c];
    CHECK(y.data<double>()[4 * 6 + 3 + c] == Approx(sum));
  }
}

}  // namespace scaled_dot_product_test
