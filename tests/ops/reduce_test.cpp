#include "tally/ops/tensor/reduce.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/core/random.h"
#include "tally/ops/elementwise/elementwise.h"

namespace tally::reduce_test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
const double kNan = std::numeric_limits<double>::quiet_NaN();

/// Gradient of the sum of f(x).
template <class F>
std::vector<double> gradient_of(const Tensor& x, F&& f) {
  Tape tape;
  const Var input = tape.input(x);
  Var total;
  {
    const Recording on(tape);
    total = ops::sum(f(input));
  }
  return tape.backward(total)[input].to_doubles();
}

Tensor uniform_values(const Shape& shape, std::uint64_t stream, double low, double high) {
  Tensor tensor(shape, DType::f64);
  fill_uniform(RngKey{7, stream}, tensor, low, high);
  return tensor.to(DType::f32);
}

TEST_CASE("long f32 sums keep their digits along every kind of dimension", "[reduce]") {
  // One large value and many small ones that plain f32 accumulation would lose.
  const std::int64_t rows = 3000, columns = 1100;
  Tensor x = uniform_values({rows, columns}, 1, 0.0, 1.0);
  x.mutable_data<float>()[0] = 1e7f;
  const std::vector<double> values = x.to_doubles();
  std::vector<double> by_column(static_cast<std::size_t>(columns)), by_row(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < by_row.size(); ++i) {
    for (std::size_t j = 0; j < by_column.size(); ++j) {
      by_column[j] += values[i * by_column.size() + j];
      by_row[i] += values[i * by_column.size() + j];
    }
  }
  const double all = std::accumulate(by_row.begin(), by_row.end(), 0.0);
  CHECK(ops::sum(x).item() == Approx(all).epsilon(3e-7));
  CHECK(ops::mean(x).item() == Approx(all / static_cast<double>(rows * columns)).epsilon(3e-7));
  const std::vector<double> columns_got = ops::sum(x, {.dims = {0}}).value().to_doubles();
  const std::vector<double> rows_got = ops::sum(x, {.dims = {1}}).value().to_doubles();
  double worst = 0;
  for (std::size_t j = 0; j < by_column.size(); ++j)
    worst = std::max(worst, std::fabs(columns_got[j] / by_column[j] - 1));
  for (std::size_t i = 0; i < by_row.size(); ++i) worst = std::max(worst, std::fabs(rows_got[i] / by_row[i] - 1));
  CHECK(worst < 1e-6);
}

TEST_CASE("sums have the same bits for any number of threads", "[reduce]") {
  const Tensor x = uniform_values({70, 90, 33}, 2, -1.0, 1.0);
  const int before = num_threads();
  std::vector<std::vector<Tensor>> results;
  for (const int threads : {1, 2, 8}) {
    set_num_threads(threads);
    std::vector<Tensor> result;
    for (const std::vector<std::int64_t>& dims :
         std::vector<std::vector<std::int64_t>>{{}, {0}, {1}, {2}, {0, 1}, {0, 2}, {1, 2}}) {
      result.push_back(ops::sum(x, {.dims = dims}).value());
      result.push_back(ops::max(x, {.dims = dims}).value());
    }
    for (const int dim : {0, 1, 2}) result.push_back(ops::cumulative_sum(x, dim).value());
    result.push_back(ops::log_sum_exp(x).value());
    results.push_back(std::move(result));
  }
  set_num_threads(before);
  for (std::size_t i = 0; i < results[0].size(); ++i) {
    CHECK(identical(results[0][i], results[1][i]));
    CHECK(identical(results[0][i], results[2][i]));
  }
}

TEST_CASE("sums of every length, with exact numbers", "[reduce]") {
  for (std::int64_t n = 0; n <= 70; ++n) {
    std::vector<float> values(static_cast<std::size_t>(3 * n));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 13) - 4;
    const Tensor rows = Tensor::from(values, {3, n}), columns = Tensor::from(values, {n, 3});
    for (const std::int64_t r : {0, 1, 2}) {
      double along = 0, across = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        along += static_cast<double>(values[static_cast<std::size_t>(r * n + i)]);
        across += static_cast<double>(values[static_cast<std::size_t>(i * 3 + r)]);
      }
      const auto at = static_cast<std::size_t>(r);
      CHECK(ops::sum(rows, {.dims = {1}}).value().to_doubles()[at] == along);
      CHECK(ops::sum(columns, {.dims = {0}}).value().to_doubles()[at] == across);
    }
    // Tiles of columns: every column of a wide matrix.
    if (n > 0) CHECK(ops::sum(rows, {.dims = {0}, .keepdims = true}).shape() == Shape{1, n});
  }
  // A transposed view sums as its copy does.
  const Tensor view = uniform_values({40, 50}, 3, 0, 1).transpose(0, 1);
  CHECK(identical(ops::sum(view, {.dims = {0}}).value(), ops::sum(view.clone(), {.dims = {0}}).value()));
}

TEST_CASE("maximum and minimum: ties, NaN, infinities and wide rows", "[reduce]") {
  const Tensor ties = Tensor::from({1.0, 3.0, 3.0, 3.0, 1.0, 1.0}, {2, 3});
  CHECK(gradient_of(ties, [](const Var& x) { return ops::max(x, {.dims = {1}}); }) ==
        std::vector<double>{0, 1, 0, 1, 0, 0});
  CHECK(gradient_of(ties, [](const Var& x) { return ops::min(x); }) == std::vector<double>{1, 0, 0, 0, 0, 0});
  CHECK(gradient_of(ties, [](const Var& x) { return ops::max(x, {.dims = {0}}); }) ==
        std::vector<double>{0, 1, 1, 1, 0, 0});
  const Tensor with_nan = Tensor::from({1.0, kNan, 5.0, kNan}, {4});
  CHECK(std::isnan(ops::max(with_nan).item()));
  CHECK(std::isnan(ops::min(with_nan).item()));
  CHECK(gradient_of(with_nan, [](const Var& x) { return ops::min(x); }) == std::vector<double>{0, 1, 0, 0});
  const Tensor lowest = Tensor::full({5}, -kInfinity, DType::f64);
  CHECK(ops::max(lowest).item() == -kInfinity);
  CHECK(gradient_of(lowest, [](const Var& x) { return ops::max(x); }) == std::vector<double>{1, 0, 0, 0, 0});
  CHECK_THROWS_AS(ops::max(Tensor({0}, DType::f64)), ShapeError);
  CHECK_THROWS_AS(ops::mean(Tensor({0}, DType::f32)), ShapeError);
  CHECK(ops::sum(Tensor({0}, DType::f32)).item() == 0);
  CHECK(ops::max(Tensor({3, 0}, DType::f64), {.dims = {0}}).shape() == Shape{0});
}

TEST_CASE("cumulative sums do not drift in f32", "[reduce]") {
  const std::int64_t n = 100000;
  const Tensor y = ops::cumulative_sum(Tensor::full({n}, 0.1, DType::f32), 0).value();
  const double tenth = static_cast<double>(0.1f);
  double worst = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    worst =
        std::max(worst, std::fabs(static_cast<double>(y.data<float>()[i]) / (tenth * static_cast<double>(i + 1)) - 1));
  }
  CHECK(worst < 6.1e-8);  // half a unit of the last place
  CHECK(gradient_of(Tensor::zeros({4}, DType::f64), [](const Var& x) { return ops::cumulative_sum(x, 0); }) ==
        std::vector<double>{4, 3, 2, 1});
}

TEST_CASE("log_sum_exp at infinities and NaN", "[reduce]") {
  const auto value = [](std::initializer_list<double> x) {
    return ops::log_sum_exp(Tensor::from(x, {static_cast<std::int64_t>(x.size())})).item();
  };
  CHECK(value({-kInfinity, -kInfinity}) == -kInfinity);
  CHECK(value({-kInfinity, 2.0}) == 2);
  CHECK(value({kInfinity, 2.0}) == kInfinity);
  CHECK(std::isnan(value({kNan, 2.0})));
  CHECK(std::isnan(value({-kInfinity, kNan})));
  CHECK(ops::log_sum_exp(Tensor({2, 0}, DType::f32)).value().to_doubles() ==
        std::vector<double>{-kInfinity, -kInfinity});
  const auto f = [](const Var& x) { return ops::log_sum_exp(x); };
  CHECK(gradient_of(Tensor::from({-kInfinity, -kInfinity}, {2}), f) == std::vector<double>{0, 0});
  CHECK(gradient_of(Tensor::from({-kInfinity, 5.0}, {2}), f) == std::vector<double>{0, 1});
  CHECK(gradient_of(Tensor::from({1000.0, 1000.0}, {2}), f) == std::vector<double>{0.5, 0.5});
}

TEST_CASE("top_k: order, ties, NaN and gradient", "[reduce]") {
  const Tensor x = Tensor::from({1.0, 4.0, kNan, 4.0, -kInfinity, kNan}, {6});
  const ops::TopK top = ops::top_k(x, 5);
  CHECK(top.indices.to_doubles() == std::vector<double>{2, 5, 1, 3, 0});
  CHECK(top.values.value().to_doubles()[3] == 4);
  const Tensor same = Tensor::full({2, 7}, 1, DType::f32);
  CHECK(ops::top_k(same, 3).indices.to_doubles() == std::vector<double>{0, 1, 2, 0, 1, 2});
  const Tensor rows = Tensor::from({1.0, 2.0, 3.0, 6.0, 5.0, 4.0}, {2, 3});
  CHECK(gradient_of(rows, [](const Var& v) {
          const Var values = ops::top_k(v, 2).values;  // weights tell the places apart
          return values * Tensor::from({1.0, 10.0, 100.0, 1000.0}, {2, 2});
        }) == std::vector<double>{0, 10, 1, 100, 1000, 0});
  // Against a full sort, over many sizes with repeated values.
  for (std::int64_t n = 1; n < 60; ++n) {
    std::vector<float> values(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>((i * 7919) % 11);
    std::vector<std::int64_t> order(values.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
      return values[static_cast<std::size_t>(a)] > values[static_cast<std::size_t>(b)];
    });
    for (const std::int64_t k : {std::int64_t{1}, n / 2, n}) {
      const Tensor got = ops::top_k(Tensor::from(values, {n}), k).indices;
      CHECK(std::equal(got.data<std::int64_t>(), got.data<std::int64_t>() + k, order.begin()));
    }
  }
}

TEST_CASE("top_k names itself where there is no such dimension", "[reduce]") {
  CHECK_THROWS_WITH(ops::top_k(Tensor({2, 3}), 1, 2), Catch::Contains("[top_k] needs a dimension in [-2, 2)"));
}

}  // namespace
}  // namespace tally::reduce_test
