#include "tally/ops/tensor/softmax.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "tally/autograd/tape.h"
#include "tally/ops/catalog.h"

namespace softmax_test {

using namespace tally;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Tensor gradient_of(Var (*op)(const Var&), const Tensor& x, const Tensor& cotangent) {
  Tape tape;
  const Var leaf = tape.input(x);
  Var y;
  {
    const Recording on(tape);
    y = op(leaf);
  }
  return tape.backward(std::span<const Var>(&y, 1), std::span<const Tensor>(&cotangent, 1))[leaf];
}

}  // namespace

TEST_CASE("a row of minus infinity", "[softmax]") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor x = Tensor::from<double>({-kInfinity, -kInfinity, 1, -kInfinity}, {2, 2}).to(dtype);
    CHECK(ops::softmax(x).value().to_doubles() == std::vector<double>{0, 0, 1, 0});
    CHECK(ops::log_softmax(x).value().to_doubles() == std::vector<double>{-kInfinity, -kInfinity, 0, -kInfinity});
    const Tensor cotangent = Tensor::from<double>({3, 4, 5, 6}, {2, 2}).to(dtype);
    CHECK(gradient_of([](const Var& v) { return ops::softmax(v); }, x, cotangent).to_doubles() ==
          std::vector<double>{0, 0, 0, 0});
    CHECK(gradient_of([](const Var& v) { return ops::log_softmax(v); }, x, cotangent).to_doubles() ==
          std::vector<double>{3, 4, -6, 6});
  }
}

TEST_CASE("softmax does not hide what is not a number", "[softmax]") {
  const double nan = std::nan("");
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor x = Tensor::from<double>({1, nan, 2, kInfinity, 1, 0}, {2, 3}).to(dtype);
    for (const Tensor& y : {ops::softmax(x).value(), ops::log_softmax(x).value()}) {
      for (const double each : y.to_doubles()) CHECK(std::isnan(each));
    }
    const Tensor only = Tensor::from<double>({-kInfinity, nan}, {1, 2}).to(dtype);
    CHECK(std::isnan(ops::softmax(only).value().to_doubles()[1]));
    CHECK(std::isnan(ops::log_softmax(only).value().to_doubles()[1]));
  }
}

TEST_CASE("log_softmax keeps what far probabilities lose", "[softmax]") {
  const Tensor x = Tensor::from<float>({10000, 9999, -10000}, {3});
  const std::vector<double> y = ops::log_softmax(x).value().to_doubles();
  CHECK(y[0] == Approx(-0.31326168).epsilon(1e-6));
  CHECK(y[1] == Approx(-1.31326168).epsilon(1e-6));
  CHECK(y[2] == Approx(-20000.31326168).epsilon(1e-7));
}

TEST_CASE("softmax of long rows sums to one", "[softmax]") {
  const Tensor y = ops::softmax(ops::sample_normal({2, 100003}, 1).to(DType::f32)).value();
  const std::vector<double> values = y.to_doubles();
  for (std::size_t row = 0; row < 2; ++row) {
    double sum = 0;
    for (std::size_t i = 0; i < 100003; ++i) sum += values[row * 100003 + i];
    CHECK(sum == Approx(1).epsilon(2e-7));
  }
}

TEST_CASE("a dimension that is not there is refused by the op that was called", "[softmax]") {
  const Tensor x({2, 3});
  using Catch::Matchers::Contains;
  CHECK_THROWS_WITH(ops::softmax(x, 2), Contains("[softmax] needs a dimension in [-2, 2) for shape [2, 3]; got 2"));
  CHECK_THROWS_WITH(ops::log_softmax(x, -3), Contains("[log_softmax] needs a dimension in [-2, 2)"));
  // Nor is one cut to an int, which would be dimension 0.
  const Tensor places = Tensor::zeros({2, 3}, DType::i64);
  for (const char* name : {"softmax", "log_softmax", "argmax", "cumulative_sum", "top_k", "gather_along", "slice"}) {
    const ops::OpEntry& entry = ops::standard_catalog().find(name);
    std::vector<Var> inputs(entry.inputs.size(), Var(x));
    if (inputs.size() > 1) inputs[1] = Var(places);
    CHECK_THROWS_WITH(entry.call(inputs, {{"dim", std::int64_t{1} << 32}}),
                      Contains("'dim' needs a dimension; got 4294967296"));
  }
}

}  // namespace softmax_test
