#include "tally/ops/tensor/shape.h"

#include <catch2/catch.hpp>

#include "tally/autograd/tape.h"
#include "tally/core/io/npy.h"
#include "tally/core/io/safetensors.h"
#include "tally/core/parallel.h"
#include "tally/core/random.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/reduce.h"

namespace tally::shape_test {
namespace {

TEST_CASE("shape ops move integers and views too", "[shape]") {
  const Tensor ids = Tensor::from({1, 2, 3, 4, 5, 6}, {2, 3});
  CHECK(ops::transpose(ids, 0, 1).value().to_doubles() == std::vector<double>{1, 4, 2, 5, 3, 6});
  CHECK(ops::concat({ids, ids}, 1).value().to_doubles() == std::vector<double>{1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6});
  CHECK(ops::gather(ids, Tensor::from({1, 0, 1}, {3})).value().to_doubles() ==
        std::vector<double>{4, 5, 6, 1, 2, 3, 4, 5, 6});
  CHECK(ops::reshape(ids, {3, -1}).shape() == Shape{3, 2});
  CHECK(ops::reshape(ids, {-1}).dtype() == DType::i32);
  const Tensor view = ids.transpose(0, 1);
  CHECK(ops::reshape(view, Shape{6}).value().to_doubles() == std::vector<double>{1, 4, 2, 5, 3, 6});
  CHECK(ops::slice(view, 1, 1, 2).value().to_doubles() == std::vector<double>{4, 5, 6});
  CHECK(ops::concat({Var(view), Var(view)}, 0).value().is_contiguous());
}

TEST_CASE("what permutes, reverses, pads, stacks, splits and gathers moves integers and views too", "[shape]") {
  const Tensor ids = Tensor::from({1, 2, 3, 4, 5, 6}, {2, 3}), view = ids.transpose(0, 1);
  using Values = std::vector<double>;
  CHECK(ops::permute(ids, {1, 0}).value().to_doubles() == Values{1, 4, 2, 5, 3, 6});
  CHECK(ops::permute(view, {1, 0}).value().to_doubles() == Values{1, 2, 3, 4, 5, 6});
  CHECK(ops::reverse(view, {0, 1}).value().to_doubles() == Values{6, 3, 5, 2, 4, 1});
  CHECK(ops::pad(view, {.before = {0, 1}, .after = {1, 0}, .value = 9}).value().to_doubles() ==
        Values{9, 1, 4, 9, 2, 5, 9, 3, 6, 9, 9, 9});
  CHECK_THROWS_AS(ops::pad(ids, {.before = {0, 1}, .after = {0, 0}, .value = 1e10}), ValueError);
  // Sums that wrap around, to a size of at least 0 or below it.
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t after : {kMost, std::int64_t{1}}) {
    CHECK_THROWS_WITH(ops::pad(ids, {.before = {0, kMost}, .after = {0, after}}),
                      Catch::Contains("[pad] needs a size below 2^63 of dimension 1 of x [2, 3]"));
  }
  CHECK_THROWS_AS(ops::pad(Var(), {}), ValueError);
  CHECK_THROWS_AS(ops::reverse(Var(), {}), ValueError);
  CHECK_THROWS_AS(ops::expand(Var(), {2}), ValueError);
  const Var stacked = ops::stack({Var(ids), Var(ids), Var(ids)}, -1);
  CHECK(stacked.shape() == Shape{2, 3, 3});
  CHECK(stacked.value().slice(0, 1, 2).to_doubles() == Values{4, 4, 4, 5, 5, 5, 6, 6, 6});
  const std::vector<Var> pieces = ops::split(ids, {1, 2}, 1);
  REQUIRE(pieces.size() == 2);
  CHECK(pieces[0].value().to_doubles() == Values{1, 4});
  CHECK(pieces[1].value().to_doubles() == Values{2, 3, 5, 6});
  CHECK_THROWS_AS(ops::split(ids, {}, 1), ShapeError);
  CHECK_THROWS_AS(ops::stack(std::vector<Var>{}, 0), ShapeError);
  CHECK(ops::gather_along(view, 1, Tensor::from({1, 0, 1}, {3, 1})).value().to_doubles() == Values{4, 2, 6});
  CHECK(ops::gather_along(view, 1, Tensor::from({1, 0, 1}, {3, 1})).dtype() == DType::i32);
  CHECK(ops::one_hot(Tensor::from({1, 0}, {2}), 2, DType::f64).to_doubles() == Values{0, 1, 1, 0});
  CHECK(ops::one_hot(Tensor::from({1, 0}, {2}), 2).dtype() == DType::f32);
}

TEST_CASE("the gradient of a split is zero in pieces that nothing was made of", "[shape]") {
  Tape tape;
  const Var x = tape.input(Tensor::from({1.0, 2.0, 3.0, 4.0}, {4}));
  Var y;
  {
    const Recording on(tape);
    y = ops::split(x, {1, 2, 1}, 0)[1];
  }
  const Tensor cotangent = Tensor::from({10.0, 100.0}, {2});
  CHECK(tape.backward(std::span(&y, 1), std::span(&cotangent, 1))[x].to_doubles() ==
        std::vector<double>{0, 10, 100, 0});
}

TEST_CASE("reshape and a slice of rows share storage; every result is contiguous", "[shape]") {
  const Tensor x = Tensor::from({1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f}, {3, 2});
  CHECK(ops::reshape(x, {2, 3}).value().shares_storage_with(x));
  CHECK(ops::slice(x, 0, 1, 3).value().shares_storage_with(x));
  for (const Var& y : {ops::slice(x, 1, 0, 1), ops::transpose(x, 0, 1), ops::expand(x, {2, 3, 2})}) {
    CHECK(y.value().is_contiguous());
    CHECK_FALSE(y.value().shares_storage_with(x));
  }
}

TEST_CASE("one Var may stand in a concat twice", "[shape]") {
  Tape tape;
  const Var x = tape.input(Tensor::from({1.0, 2.0}, {2}));
  Var y;
  {
    const Recording on(tape);
    y = ops::concat({x, Tensor::zeros({1}, DType::f64), x}, 0);
  }
  const Tensor cotangent = Tensor::from({1.0, 10.0, 100.0, 1000.0, 10000.0}, {5});
  CHECK(tape.backward(std::span(&y, 1), std::span(&cotangent, 1))[x].to_doubles() == std::vector<double>{1001, 10010});
  CHECK_THROWS_AS(ops::concat(std::vector<Var>{}, 0), ShapeError);
}

TEST_CASE("index_add and the gradient of gather add in order, with any number of threads", "[shape]") {
  const std::int64_t rows = 50, width = 700, n = 2000;
  Tensor values({n, width}), indices({n}, DType::i64);
  fill_normal(RngKey{3, 1}, values, 0, 1);
  for (std::int64_t i = 0; i < n; ++i) indices.mutable_data<std::int64_t>()[i] = (i * i + 3 * i) % rows;
  // The same additions one by one, in f32.
  std::vector<float> expected(static_cast<std::size_t>(rows * width));
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < width; ++j) {
      expected[static_cast<std::size_t>(indices.data<std::int64_t>()[i] * width + j)] +=
          values.data<float>()[i * width + j];
    }
  }
  const Tensor wanted = Tensor::from(expected, {rows, width});
  const int before = num_threads();
  for (const int threads : {1, 2, 8}) {
    set_num_threads(threads);
    CHECK(identical(ops::index_add(Tensor::zeros({rows, width}), indices, values).value(), wanted));
    Tape tape;
    const Var x = tape.input(Tensor::zeros({rows, width}));
    Var y;
    {
      const Recording on(tape);
      y = ops::gather(x, indices);
    }
    CHECK(identical(tape.backward(std::span(&y, 1), std::span(&values, 1))[x], wanted));
  }
  set_num_threads(before);
}

TEST_CASE("index_add leaves its input alone", "[shape]") {
  const Tensor x = Tensor::from({1.0, 2.0}, {2});
  const Tensor y = ops::index_add(x, Tensor::from({1, 1}, {2}), Tensor::from({5.0, 7.0}, {2})).value();
  CHECK(y.to_doubles() == std::vector<double>{1, 14});
  CHECK(x.to_doubles() == std::vector<double>{1, 2});
}

TEST_CASE("tensors have up to eight dimensions", "[shape]") {
  const Tensor x = Tensor::arange(96, DType::f64).reshape({2, 1, 3, 1, 2, 2, 2, 2});
  const Tensor y = ops::permute(x, {7, 6, 5, 4, 3, 2, 1, 0}).value();
  CHECK(y.shape() == Shape{2, 2, 2, 2, 1, 3, 1, 2});
  CHECK(y(1, 0, 1, 1, 0, 2, 0, 1) == x(1, 0, 2, 0, 1, 1, 0, 1));
  // Broadcast, and summed back.
  const Tensor row = Tensor::from({10.0, 20.0}, {2});
  const auto [value, gradients] = [&] {
    const Var leaf = Var::leaf(row);
    auto result = value_and_gradients([&] { return ops::sum(leaf * x); });
    return std::pair(result.value.item(), result.gradients[leaf].to_doubles());
  }();
  double even = 0, odd = 0;
  for (std::int64_t i = 0; i < 96; ++i) (i % 2 == 0 ? even : odd) += static_cast<double>(i);
  CHECK(value == 10 * even + 20 * odd);
  CHECK(gradients == std::vector<double>{even, odd});
  CHECK(ops::sum(x, {.dims = {0, 2, 4, 6}}).value().shape() == Shape{1, 1, 2, 2});
  CHECK(identical(decode_npy(encode_npy(x)), x));
  CHECK(identical(decode_safetensors(encode_safetensors({{"x", x}})).at("x"), x));
}

}  // namespace
}  // namespace tally::shape_test
