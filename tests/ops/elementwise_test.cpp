#include "tally/ops/elementwise/elementwise.h"

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>

#include "tally/autograd/tape.h"
#include "tally/core/simd.h"
#include "tally/ops/kernels/elementwise.h"
#include "tests/ops/elementwise_cases.h"

namespace tally::elementwise_test {
namespace {

using testing::gradient_of;
using testing::on_each_target;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Floats of both signs, evenly spread over exponents between two magnitudes.
std::vector<float> spread(double smallest, double largest, bool negative) {
  std::vector<float> values;
  const int count = 20000;
  for (int i = 0; i < count; ++i) {
    const auto value = static_cast<float>(smallest * std::pow(largest / smallest, i / (count - 1.0)));
    values.push_back(value);
    if (negative) values.push_back(-value);
  }
  return values;
}

TEST_CASE("the normal distribution function in f32 keeps its digits in both tails", "[elementwise]") {
  // gelu(x) / x, so that the polynomials are seen without the factor; the derivative has both parts of it.
  on_each_target([] {
    const std::vector<float> x = spread(1e-4, 12.5, true), one(x.size(), 1.0f);
    std::vector<float> gradient(x.size());
    kernels::unary_backward(kernels::UnaryOp::gelu, one.data(), x.data(), gradient.data(),
                            static_cast<std::int64_t>(x.size()));
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double at = static_cast<double>(x[i]);
      const double density = std::exp(-0.5 * at * at) / std::sqrt(2 * M_PI);
      const double distribution = 0.5 * std::erfc(-at / std::sqrt(2.0));
      // The two parts cancel near x = -0.75: the error is measured against their magnitudes.
      const double scale = distribution + std::fabs(at) * density;
      worst = std::max(worst, std::fabs(static_cast<double>(gradient[i]) - (distribution + at * density)) / scale);
    }
    CHECK(worst < 5e-7);
  });
}

struct Special {
  const char* name;
  kernels::UnaryOp op;
  std::vector<std::pair<float, float>> cases;  ///< argument and exact result
};

TEST_CASE("elementwise functions at infinities, zeros, denormals and NaN", "[elementwise]") {
  using kernels::UnaryOp;
  const float largest = std::numeric_limits<float>::max(), tiny = 1e-42f;
  const Special specials[] = {
      {"negate", UnaryOp::negate, {{0.0f, -0.0f}, {kInfinity, -kInfinity}}},
      {"abs", UnaryOp::absolute, {{-0.0f, 0.0f}, {-kInfinity, kInfinity}, {-tiny, tiny}}},
      {"exp",
       UnaryOp::exp,
       {{0, 1},
        {-0.0f, 1},
        {tiny, 1},
        {kInfinity, kInfinity},
        {-kInfinity, 0},
        {largest, kInfinity},
        {-largest, 0},
        {88.8f, kInfinity},
        {-104.5f, 0}}},
      {"log",
       UnaryOp::log,
       {{1, 0},
        {0, -kInfinity},
        {-0.0f, -kInfinity},
        {kInfinity, kInfinity},
        {-1, kNan},
        {-kInfinity, kNan},
        {-largest, kNan}}},
      {"square", UnaryOp::square, {{-0.0f, 0}, {-kInfinity, kInfinity}, {largest, kInfinity}, {tiny, 0}}},
      {"sqrt", UnaryOp::sqrt, {{0, 0}, {-0.0f, -0.0f}, {kInfinity, kInfinity}, {-1, kNan}}},
      {"tanh", UnaryOp::tanh, {{0, 0}, {-0.0f, -0.0f}, {kInfinity, 1}, {-kInfinity, -1}, {largest, 1}, {-largest, -1}}},
      {"sigmoid", UnaryOp::sigmoid, {{0, 0.5f}, {kInfinity, 1}, {-kInfinity, 0}, {largest, 1}, {-largest, 0}}},
      {"relu", UnaryOp::relu, {{0, 0}, {-0.0f, 0}, {kInfinity, kInfinity}, {-kInfinity, 0}, {tiny, tiny}}},
      {"gelu",
       UnaryOp::gelu,
       {{0, 0}, {-0.0f, -0.0f}, {kInfinity, kInfinity}, {-kInfinity, -0.0f}, {largest, largest}, {-largest, -0.0f}}},
      {"silu",
       UnaryOp::silu,
       {{0, 0}, {-0.0f, -0.0f}, {kInfinity, kInfinity}, {-kInfinity, -0.0f}, {largest, largest}, {-largest, -0.0f}}},
      {"softplus", UnaryOp::softplus, {{kInfinity, kInfinity}, {-kInfinity, 0}, {largest, largest}, {-largest, 0}}},
      {"sign",
       UnaryOp::sign,
       {{0, 0}, {-0.0f, 0}, {kInfinity, 1}, {-kInfinity, -1}, {tiny, 1}, {-tiny, -1}, {-largest, -1}}},
      {"sin", UnaryOp::sin, {{0, 0}, {-0.0f, -0.0f}, {kInfinity, kNan}, {-kInfinity, kNan}, {tiny, tiny}}},
      {"cos", UnaryOp::cos, {{0, 1}, {-0.0f, 1}, {kInfinity, kNan}, {-kInfinity, kNan}}},
      {"erf", UnaryOp::erf, {{0, 0}, {-0.0f, -0.0f}, {kInfinity, 1}, {-kInfinity, -1}, {largest, 1}, {-largest, -1}}},
      {"log1p",
       UnaryOp::log1p,
       {{0, 0},
        {-0.0f, -0.0f},
        {tiny, tiny},
        {-1, -kInfinity},
        {-1.5f, kNan},
        {kInfinity, kInfinity},
        {-kInfinity, kNan}}},
      {"expm1", UnaryOp::expm1, {{0, 0}, {-0.0f, -0.0f}, {kInfinity, kInfinity}, {-kInfinity, -1}, {-largest, -1}}},
      {"elu",
       UnaryOp::elu,
       {{0, 0}, {-0.0f, -0.0f}, {kInfinity, kInfinity}, {-kInfinity, -1}, {largest, largest}, {-largest, -1}}},
      {"power", UnaryOp::power, {{3, 3}, {kInfinity, kInfinity}}},
      {"clamp", UnaryOp::clamp, {{kInfinity, kInfinity}, {-kInfinity, -kInfinity}}},
  };
  on_each_target([&] {
    for (const Special& special : specials) {
      std::vector<std::pair<float, float>> cases = special.cases;
      cases.emplace_back(kNan, kNan);
      for (const auto& [argument, expected] : cases) {
        INFO(special.name << "(" << argument << ")");
        // Once within a vector and once in the rest behind it.
        const std::vector<float> x(65, argument);
        std::vector<float> y(65);
        kernels::unary(special.op, x.data(), y.data(), 65);
        for (const float got : {y.front(), y.back()}) {
          if (std::isnan(expected)) {
            CHECK(std::isnan(got));
          } else {
            CHECK(got == expected);
            CHECK(std::signbit(got) == std::signbit(expected));
          }
        }
        double wide = 0;
        const auto same = static_cast<double>(argument);
        kernels::unary(special.op, &same, &wide, 1);
        if (std::isnan(expected)) {
          CHECK(std::isnan(wide));
        } else if (std::isfinite(argument) && std::fabs(argument) < 1e30f && std::fabs(argument) > 1e-30f) {
          CHECK(wide == Approx(same == -104.5  ? std::exp(same)
                               : same == 88.8f ? std::exp(same)
                                               : expected)
                            .margin(1e-40));
        } else if (!std::isfinite(argument)) {
          CHECK(wide == static_cast<double>(expected));
        }
      }
    }
  });
}

TEST_CASE("gradients of activations stay finite at infinities and huge arguments", "[elementwise]") {
  using kernels::UnaryOp;
  struct Limit {
    UnaryOp op;
    double low, high;  ///< derivative towards -infinity and infinity
  };
  on_each_target([] {
    for (const Limit& limit : {Limit{UnaryOp::gelu, 0, 1}, Limit{UnaryOp::silu, 0, 1}, Limit{UnaryOp::softplus, 0, 1},
                               Limit{UnaryOp::elu, 0, 1}}) {
      for (const float magnitude : {300.0f, 1e30f, std::numeric_limits<float>::max(), kInfinity}) {
        for (const float sign : {-1.0f, 1.0f}) {
          const float x = sign * magnitude, one = 1;
          float gradient = kNan;
          kernels::unary_backward(limit.op, &one, &x, &gradient, 1);
          INFO("op " << static_cast<int>(limit.op) << " at " << x);
          CHECK(static_cast<double>(gradient) == Approx(sign < 0 ? limit.low : limit.high).margin(1e-30));
          const double wide_x = static_cast<double>(x), wide_one = 1;
          double wide = 0;
          kernels::unary_backward(limit.op, &wide_one, &wide_x, &wide, 1);
          CHECK(wide == Approx(sign < 0 ? limit.low : limit.high).margin(1e-30));
        }
      }
    }
  });
}

TEST_CASE("an element's value does not depend on the length or place it is computed at", "[elementwise]") {
  on_each_target([] {
    std::vector<float> x(131), g(131);
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = 0.37f * static_cast<float>(i % 17) + 0.01f;
      g[i] = 1.0f + static_cast<float>(i);
    }
    for (int op = 0; op <= static_cast<int>(kernels::UnaryOp::clamp); ++op) {
      const auto kind = static_cast<kernels::UnaryOp>(op);
      std::vector<float> whole(x.size()), whole_gradient(x.size());
      kernels::unary(kind, x.data(), whole.data(), 131);
      kernels::unary_backward(kind, g.data(), x.data(), whole_gradient.data(), 131);
      for (std::int64_t n = 0; n <= 34; ++n) {
        for (const std::int64_t begin : {std::int64_t{0}, std::int64_t{3}, 131 - n}) {
          const std::vector<float> part(x.begin() + begin, x.begin() + begin + n);  // of exact size, for the sanitizer
          const std::vector<float> part_g(g.begin() + begin, g.begin() + begin + n);
          std::vector<float> y(part.size()), gx(part.size());
          kernels::unary(kind, part.data(), y.data(), n);
          kernels::unary_backward(kind, part_g.data(), part.data(), gx.data(), n);
          CHECK(std::equal(y.begin(), y.end(), whole.begin() + begin));
          CHECK(std::equal(gx.begin(), gx.end(), whole_gradient.begin() + begin));
          // In place.
          std::vector<float> same = part;
          kernels::unary(kind, same.data(), same.data(), n);
          CHECK(same == y);
        }
      }
    }
  });
}

TEST_CASE("arithmetic of f32 is exact to the last bit at every length and broadcast", "[elementwise]") {
  on_each_target([] {
    for (std::int64_t n = 0; n <= 34; ++n) {
      for (const std::int64_t rows : {std::int64_t{1}, std::int64_t{3}}) {
        std::vector<float> a(static_cast<std::size_t>(rows * n)), row(static_cast<std::size_t>(n)), column(3);
        for (std::size_t i = 0; i < a.size(); ++i) a[i] = 1.1f * static_cast<float>(i) - 7;
        for (std::size_t i = 0; i < row.size(); ++i) row[i] = 0.7f * static_cast<float>(i) + 0.3f;
        for (std::size_t i = 0; i < column.size(); ++i) column[i] = 0.9f * static_cast<float>(i) - 1.4f;
        const Tensor ta = Tensor::from(a, {rows, n}), tr = Tensor::from(row, {n});
        const Tensor tc = Tensor::from(std::vector<float>(column.begin(), column.begin() + rows), {rows, 1});
        const Tensor sum = ops::add(ta, tr).value(), difference = ops::subtract(tr, ta).value();
        const Tensor product = ops::multiply(ta, tc).value(), quotient = ops::divide(ta, tc).value();
        const Tensor outer = ops::multiply(tc, tr).value(), scaled = (2.5 / Var(ta)).value();
        bool equal = true;
        for (std::int64_t i = 0; i < rows; ++i) {
          for (std::int64_t j = 0; j < n; ++j) {
            const auto at = static_cast<std::size_t>(i * n + j);
            const float x = a[at], r = row[static_cast<std::size_t>(j)], c = column[static_cast<std::size_t>(i)];
            equal = equal && sum.data<float>()[at] == x + r && difference.data<float>()[at] == r - x &&
                    product.data<float>()[at] == x * c && quotient.data<float>()[at] == x / c &&
                    outer.data<float>()[at] == c * r && scaled.data<float>()[at] == 2.5f / x;
          }
        }
        CHECK(equal);
      }
    }
  });
}

TEST_CASE("conventions where no derivative exists", "[elementwise]") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const auto at = [&](const std::function<Var(const Var&)>& f, double x) {
      return gradient_of(f, Tensor::full({1}, x, dtype)).item();
    };
    CHECK(at(ops::relu, 0) == 0);
    CHECK(at(ops::relu, -0.0) == 0);
    CHECK(at(ops::abs, 0) == 0);
    CHECK(at(ops::abs, -3) == -1);
    CHECK(at(ops::sign, 3) == 0);
    CHECK(at(ops::sqrt, 0) == std::numeric_limits<double>::infinity());
    CHECK(at(ops::log, 0) == std::numeric_limits<double>::infinity());
    CHECK(at([](const Var& x) { return ops::elu(x, {.alpha = 0.25}); }, 0) == 0.25);
    CHECK(at([](const Var& x) { return ops::power(x, 0); }, 0) == 0);
    CHECK(at([](const Var& x) { return ops::power(x, 1); }, 0) == 1);
    CHECK(at([](const Var& x) { return ops::power(x, 2); }, 0) == 0);
    CHECK(at([](const Var& x) { return ops::power(x, 0.5); }, 0) == std::numeric_limits<double>::infinity());
    const auto clamp = [](const Var& x) { return ops::clamp(x, {.low = -1, .high = 2}); };
    CHECK(at(clamp, -1) == 1);
    CHECK(at(clamp, 2) == 1);
    CHECK(at(clamp, -1.25) == 0);
    CHECK(at(clamp, 2.25) == 0);
  }
}

TEST_CASE("gradients of a quotient and of a power survive intermediates out of range", "[elementwise]") {
  // g a / b^2: g / b overflows or vanishes, or g a / b does, and the result is an ordinary number.
  struct Case {
    double g, a, b;
  };
  const auto gradient_of_divisor = [](const Case& c, DType dtype) {
    const Tensor a = Tensor::full({3}, c.a, dtype), g = Tensor::full({3}, c.g, dtype);
    return gradient_of([&](const Var& b) { return ops::divide(a, b); }, Tensor::full({3}, c.b, dtype), g)
        .slice(0, 2, 3)
        .item();
  };
  on_each_target([&] {
    for (const Case& c : {Case{1, 0, 1.401298464324817e-45}, Case{1, 0, 1e-40}, Case{-3, 0, 2e-39}, Case{0, 2, 1e-20},
                          Case{1e20, 1e-25, 1e-20}, Case{1e-30, 1e-10, 1e-25}, Case{1e30, 1e30, 1e25},
                          Case{1e-30, 1e30, 1e10}, Case{2, 3, 4}, Case{1e-20, 1e-30, 1e-22}}) {
      INFO(c.g << ' ' << c.a << ' ' << c.b);
      const double exact = -c.g * c.a / c.b / c.b, got = gradient_of_divisor(c, DType::f32);
      if (std::fabs(exact) > 3.4e38) {
        CHECK(std::isinf(got));
      } else {
        CHECK(std::fabs(got - exact) <= 1e-6 * std::fabs(exact) + 1e-44);
      }
    }
  });
  CHECK(gradient_of_divisor({1, 0, 4.9e-324}, DType::f64) == 0);
  CHECK(gradient_of_divisor({1e200, 1e-308, 1e-120}, DType::f64) == Approx(-1e132).epsilon(1e-9));
  CHECK(gradient_of_divisor({1e-200, 1e-200, 1e-190}, DType::f64) == Approx(-1e-20).epsilon(1e-9));

  const auto power_gradient = [](double g, double x, double exponent) {
    return gradient_of([&](const Var& v) { return ops::power(v, exponent); }, Tensor::full({1}, x, DType::f32),
                       Tensor::full({1}, g, DType::f32))
        .item();
  };
  CHECK(power_gradient(0, 1e-20, -1.5) == 0);
  CHECK(power_gradient(1e-30, 1e-20, -1.5) == Approx(-1.5e20).epsilon(1e-5));
  CHECK(std::isinf(power_gradient(1, 0, 0.5)));
}

TEST_CASE("where takes nothing from the operand that was not chosen", "[elementwise]") {
  const double nan = std::nan("");
  const Tensor mask = Tensor::from({std::uint8_t{1}, std::uint8_t{0}, std::uint8_t{2}}, {3});
  const Tensor a = Tensor::from({1.0, nan, 3.0}, {3}), b = Tensor::from({nan, 2.0, nan}, {3});
  CHECK(ops::where(mask, a, b).value().to_doubles() == std::vector<double>{1, 2, 3});
  CHECK(gradient_of([&](const Var& v) { return ops::where(mask, v, b); }, a).to_doubles() ==
        std::vector<double>{1, 0, 1});
  CHECK(gradient_of([&](const Var& v) { return ops::where(mask, a, v); }, b).to_doubles() ==
        std::vector<double>{0, 1, 0});
  // A NaN cotangent of what was not chosen does not come through either.
  const Tensor cotangent = Tensor::from({1.0, nan, 1.0}, {3});
  CHECK(gradient_of([&](const Var& v) { return ops::where(mask, v, b); }, a, cotangent).to_doubles() ==
        std::vector<double>{1, 0, 1});
}

TEST_CASE("views that are not contiguous give the bits of their copies", "[elementwise]") {
  const Tensor base = Tensor::from({1.5f, -2.0f, 0.25f, 3.0f, -0.75f, 6.0f}, {2, 3});
  const Tensor view = base.transpose(0, 1), copy = view.clone();
  CHECK_FALSE(view.is_contiguous());
  CHECK(identical(ops::gelu(view).value(), ops::gelu(copy).value()));
  CHECK(identical((Var(view) * copy).value(), (Var(copy) * copy).value()));
  CHECK(identical(ops::add(view, base.slice(0, 1, 2).slice(1, 0, 2)).value(),
                  ops::add(copy, base.slice(0, 1, 2).slice(1, 0, 2).clone()).value()));
}

TEST_CASE("operators take numbers and keep what backward needs only", "[elementwise]") {
  const Tensor x = Tensor::from({2.0f, -4.0f}, {2});
  const auto value = [](const Var& v) { return v.value().to_doubles(); };
  CHECK(value(Var(x) + 1) == std::vector<double>{3, -3});
  CHECK(value(1 + Var(x)) == std::vector<double>{3, -3});
  CHECK(value(Var(x) - 1) == std::vector<double>{1, -5});
  CHECK(value(1 - Var(x)) == std::vector<double>{-1, 5});
  CHECK(value(Var(x) * 3) == std::vector<double>{6, -12});
  CHECK(value(3 * Var(x)) == std::vector<double>{6, -12});
  CHECK(value(Var(x) / 4) == std::vector<double>{0.5, -1});
  CHECK(value(4 / Var(x)) == std::vector<double>{2, -1});
  CHECK(value(-Var(x)) == std::vector<double>{-2, 4});
  // x * number keeps the number, not x: overwriting x afterwards is no error. x * y keeps both.
  for (const bool by_number : {true, false}) {
    Tape tape;
    Tensor data = x.clone();
    const Var input = tape.input(data);
    Var y;
    {
      const Recording on(tape);
      y = by_number ? input * 3 : input * input;
    }
    data.fill(7);
    const Tensor one = Tensor::full({2}, 1);
    if (by_number) {
      CHECK(tape.backward(std::span(&y, 1), std::span(&one, 1))[input].to_doubles() == std::vector<double>{3, 3});
    } else {
      CHECK_THROWS_AS(tape.backward(std::span(&y, 1), std::span(&one, 1)), AutogradError);
    }
  }
}

TEST_CASE("a cotangent that others hold is not overwritten by an elementwise backward", "[elementwise]") {
  const Tensor x = Tensor::from({1.0, 2.0, 3.0}, {3}), cotangent = Tensor::from({1.0, 10.0, 100.0}, {3});
  const Tensor gradient = gradient_of(ops::square, x, cotangent);
  CHECK(gradient.to_doubles() == std::vector<double>{2, 40, 600});
  CHECK(cotangent.to_doubles() == std::vector<double>{1, 10, 100});
  // y = x + x^2 through two paths that share the cotangent of the sum.
  CHECK(gradient_of([](const Var& v) { return v + ops::square(v); }, x, cotangent).to_doubles() ==
        std::vector<double>{3, 50, 700});
}

}  // namespace
}  // namespace tally::elementwise_test
