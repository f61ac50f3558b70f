// Functions of two tensors.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "tally/ops/elementwise/elementwise.h"
#include "tests/ops/elementwise_cases.h"

namespace tally::elementwise_pairs_test {
namespace {

using testing::gradient_of;
using testing::on_each_target;

TEST_CASE("maximum and minimum share ties and pass NaN on, as PyTorch does", "[elementwise]") {
  const double nan = std::nan("");
  for (const DType dtype : {DType::f32, DType::f64}) {
    // Longer than every vector, so that whole vectors and rests are seen.
    const auto tensor = [&](const std::vector<double>& five) {
      std::vector<double> values;
      for (int i = 0; i < 14; ++i) values.insert(values.end(), five.begin(), five.end());
      return Tensor::from(values, {14, 5}).to(dtype);
    };
    const auto check = [&](const Tensor& got, const std::vector<double>& five) {
      const std::vector<double> values = got.to_doubles();
      for (std::size_t i = 0; i < values.size(); ++i) {
        INFO(i << " of " << dtype);
        CHECK(((std::isnan(values[i]) && std::isnan(five[i % 5])) || values[i] == five[i % 5]));
      }
    };
    on_each_target([&] {
      const Tensor a = tensor({1, 2, 3, nan, 5}), b = tensor({2, 2, -1, 0, nan}), g = tensor({2, 4, 6, 8, 10});
      check(ops::maximum(a, b).value(), {2, 2, 3, nan, nan});
      check(ops::minimum(a, b).value(), {1, 2, -1, nan, nan});
      check(gradient_of([&](const Var& v) { return ops::maximum(v, b); }, a, g), {0, 2, 6, 8, 10});
      check(gradient_of([&](const Var& v) { return ops::maximum(a, v); }, b, g), {2, 2, 0, 8, 10});
      check(gradient_of([&](const Var& v) { return ops::minimum(v, b); }, a, g), {2, 2, 0, 8, 10});
      check(gradient_of([&](const Var& v) { return ops::minimum(a, v); }, b, g), {0, 2, 6, 8, 10});
    });
  }
}

TEST_CASE("a power with a tensor exponent at 0, below it and with exponent 0", "[elementwise]") {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::nan("");
  struct Case {
    double base, exponent, value, by_base, by_exponent;
  };
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const Case& c : {Case{0, 0, 1, 0, 0}, Case{0, 2, 0, 0, 0}, Case{0, 0.5, 0, infinity, 0},
                          Case{0, -1, infinity, -infinity, -infinity}, Case{-2, 3, -8, 12, nan},
                          Case{3, 0, 1, 0, std::log(3.0)}, Case{-2, 0.5, nan, nan, nan}}) {
      INFO(c.base << " ^ " << c.exponent << " in " << dtype);
      const auto same = [&](double got, double expected) {
        return std::isnan(expected) ? std::isnan(got) : got == Approx(expected).epsilon(1e-6);
      };
      const Tensor base = Tensor::full({1}, c.base, dtype), exponent = Tensor::full({1}, c.exponent, dtype);
      CHECK(same(ops::power(base, exponent).item(), c.value));
      CHECK(same(gradient_of([&](const Var& v) { return ops::power(v, exponent); }, base).item(), c.by_base));
      CHECK(same(gradient_of([&](const Var& v) { return ops::power(base, v); }, exponent).item(), c.by_exponent));
    }
  }
}

TEST_CASE("comparisons of integers give masks that where takes", "[elementwise]") {
  const std::int64_t large = (std::int64_t{1} << 53) + 1;  // no double tells it from its neighbour
  const Tensor ids = Tensor::from({large, large - 1, std::int64_t{-3}}, {3}), id = Tensor::from({large}, {1});
  CHECK(ops::equal(ids, id).to_doubles() == std::vector<double>{1, 0, 0});
  CHECK(ops::not_equal(ids, id).to_doubles() == std::vector<double>{0, 1, 1});
  CHECK(ops::less(ids, id).to_doubles() == std::vector<double>{0, 1, 1});
  CHECK(ops::greater_equal(ids, id).to_doubles() == std::vector<double>{1, 0, 0});
  const Tensor a = Tensor::from({1.0f, 2.0f, 3.0f}, {3});
  CHECK(ops::where(ops::less_equal(ids, id), a, Tensor::scalar(0)).value().to_doubles() ==
        std::vector<double>{1, 2, 3});
  const Tensor chosen = ops::where(ops::less(ids, id), ids, id).value();  // the smaller ones, to the last digit
  CHECK(chosen.dtype() == DType::i64);
  CHECK(ops::equal(chosen, Tensor::from({large, large - 1, std::int64_t{-3}}, {3})).to_doubles() ==
        std::vector<double>{1, 1, 1});
  CHECK_THROWS_AS(ops::where(ops::less(ids, id), ids, a), DTypeError);
  CHECK_THROWS_AS(ops::greater(ids, a), DTypeError);
}

TEST_CASE("+= adds to a Var and is differentiated, and leaves the tensor that it had", "[elementwise]") {
  const Tensor x = Tensor::from({1.0, 2.0}, {2});
  Var total = x;
  total += x;
  total += 0.5;
  CHECK(total.value().to_doubles() == std::vector<double>{2.5, 4.5});
  CHECK(x.to_doubles() == std::vector<double>{1, 2});
  const Tensor gradient = gradient_of(
      [](const Var& v) {
        Var sum = v;
        for (int i = 0; i < 3; ++i) sum += ops::square(v);
        return sum += sum;
      },
      x);
  CHECK(gradient.to_doubles() == std::vector<double>{14, 26});
}

}  // namespace
}  // namespace tally::elementwise_pairs_test
