#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "tally/core/parallel.h"
#include "tally/core/simd.h"
#include "tally/ops/kernels/elementwise.h"
#include "tests/ops/elementwise_cases.h"

namespace tally::elementwise_accuracy_test {
namespace {

using kernels::UnaryOp;
using testing::on_each_target;

constexpr float kSmallestNormal = std::numeric_limits<float>::min();

/// Distance in units of the last place of the exact value, infinity taken for the 2^128 that it stands for. A result
/// below the smallest normal number may as well be 0. Infinite where one is NaN and the other is not.
double ulps(float got, double exact) {
  const double magnitude = std::fabs(exact);
  if (static_cast<float>(exact) == got || (std::isnan(got) && std::isnan(exact))) return 0;
  if (magnitude < double{kSmallestNormal} && std::fabs(got) <= kSmallestNormal) return 0;
  if (!std::isfinite(exact) || std::isnan(got)) return std::numeric_limits<double>::infinity();
  int exponent = 0;
  std::frexp(std::max(magnitude, double{kSmallestNormal}), &exponent);
  const double value = std::isinf(got) ? std::copysign(0x1p128, static_cast<double>(got)) : static_cast<double>(got);
  return std::fabs(value - exact) / std::ldexp(1.0, exponent - 24);
}

struct Accuracy {
  const char* name;
  UnaryOp op;
  double (*exact)(double);
  double ulp;  ///< bound that docs/ops.md promises
};

/// x f, of a factor that tends to 0 faster than x to -infinity.
double product(double x, double f) { return f == 0 ? 0 : x * f; }

const Accuracy kAccuracies[] = {
    {"exp", UnaryOp::exp, [](double x) { return std::exp(x); }, 1.5},
    {"log", UnaryOp::log, [](double x) { return std::log(x); }, 1.5},
    {"sqrt", UnaryOp::sqrt, [](double x) { return std::sqrt(x); }, 0.5},
    {"square", UnaryOp::square, [](double x) { return x * x; }, 0.5},
    {"tanh", UnaryOp::tanh, [](double x) { return std::tanh(x); }, 4},
    {"sigmoid", UnaryOp::sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }, 3},
    {"gelu", UnaryOp::gelu, [](double x) { return product(x, 0.5 * std::erfc(-x * M_SQRT1_2)); }, 5},
    {"silu", UnaryOp::silu, [](double x) { return product(x, 1 / (1 + std::exp(-x))); }, 3},
    {"softplus", UnaryOp::softplus, [](double x) { return (x > 0 ? x : 0) + std::log1p(std::exp(-std::fabs(x))); }, 4},
    {"sin", UnaryOp::sin, [](double x) { return std::sin(x); }, 3},
    {"cos", UnaryOp::cos, [](double x) { return std::cos(x); }, 3},
    {"erf", UnaryOp::erf, [](double x) { return std::erf(x); }, 4},
    {"log1p", UnaryOp::log1p, [](double x) { return std::log1p(x); }, 3},
    {"expm1", UnaryOp::expm1, [](double x) { return std::expm1(x); }, 4},
    {"elu", UnaryOp::elu, [](double x) { return x > 0 ? x : std::expm1(x); }, 4},
};

struct Worst {
  double distance = 0;
  float at = 0;
};
Worst worse(const Worst& a, const Worst& b) { return b.distance > a.distance ? b : a; }

constexpr std::int64_t kGrain = 1 << 14;

/// Arguments, and what the definition makes of them.
struct Points {
  std::vector<float> x;
  std::vector<double> exact;
  std::vector<float> rounded;  ///< exact
};

/// Points i of count whose x is at(i).
template <class At>
Points points_of(const Accuracy& accuracy, std::size_t count, At&& at) {
  Points points{std::vector<float>(count), std::vector<double>(count), std::vector<float>(count)};
  parallel_for(static_cast<std::int64_t>(count), kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      points.x[i] = at(i);
      points.exact[i] = accuracy.exact(static_cast<double>(points.x[i]));
      points.rounded[i] = static_cast<float>(points.exact[i]);
    }
  });
  return points;
}

/// The worst of f32 on the SIMD target in use.
Worst worst_of(UnaryOp op, const Points& points) {
  const auto leaf = [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> y(static_cast<std::size_t>(end - begin));
    kernels::unary(op, points.x.data() + begin, y.data(), end - begin);
    Worst worst;
    const float* const rounded = points.rounded.data() + begin;
    for (std::size_t i = 0; i < y.size(); ++i) {
      if (y[i] == rounded[i]) continue;  // most of them
      const std::size_t place = static_cast<std::size_t>(begin) + i;
      worst = worse(worst, {ulps(y[i], points.exact[place]), points.x[place]});
    }
    return worst;
  };
  return parallel_reduce(static_cast<std::int64_t>(points.x.size()), kGrain, Worst{}, leaf, worse);
}

/// Checks the floats with bits i step, i in [0, count), on targets; in parts, and the definition is evaluated once for
/// all targets.
void check_accuracy(const Accuracy& accuracy, const std::vector<std::string>& targets, std::uint64_t step,
                    std::uint64_t count) {
  constexpr std::uint64_t kPart = 1 << 20;
  std::vector<Worst> worst(targets.size());
  for (std::uint64_t begin = 0; begin < count; begin += kPart) {
    const Points points = points_of(accuracy, std::min(kPart, count - begin), [&](std::size_t i) {
      return std::bit_cast<float>(static_cast<std::uint32_t>((begin + i) * step));
    });
    for (std::size_t t = 0; t < targets.size(); ++t) {
      set_simd_target(targets[t]);
      worst[t] = worse(worst[t], worst_of(accuracy.op, points));
    }
  }
  set_simd_target("");
  for (std::size_t t = 0; t < targets.size(); ++t) {
    INFO(accuracy.name << " on " << targets[t] << ": " << worst[t].distance << " ulp at " << worst[t].at);
    CHECK(worst[t].distance <= accuracy.ulp);
  }
}

TEST_CASE("elementwise f32 functions are within their bounds of std:: in double", "[elementwise]") {
  for (const Accuracy& accuracy : kAccuracies) {
    check_accuracy(accuracy, simd_targets(), 99991, (std::uint64_t{1} << 32) / 99991);
  }
}

TEST_CASE("elementwise f32 functions are within their bounds where rounding errors once added up", "[elementwise]") {
  const std::pair<UnaryOp, std::vector<float>> cases[] = {
      {UnaryOp::gelu,
       {-1.838690996f, -2.198049784f, -5.348175526f, -1.849895f, -1.312f, -1.307534f, -1.31109f, -12.9f, -13.0f,
        -13.1011f, -13.12f}},
      {UnaryOp::silu, {-79.9f, -80.1f, -85.0f, -88.7f, -89.4629f, -91.1686f, -91.8f, -91.9f, -92.0f, -104.0f}}};
  on_each_target([&] {
    for (const auto& [op, x] : cases) {
      const auto accuracy = std::find_if(std::begin(kAccuracies), std::end(kAccuracies),
                                         [&op = op](const Accuracy& each) { return each.op == op; });
      const Points points = points_of(*accuracy, x.size(), [&x = x](std::size_t i) { return x[i]; });
      const Worst worst = worst_of(op, points);
      INFO(accuracy->name << ": " << worst.distance << " ulp at " << worst.at);
      CHECK(worst.distance <= accuracy->ulp);
    }
  });
}

// An hour of a core, by hand.
TEST_CASE("elementwise f32 functions are within their bounds at every float", "[.][every_float]") {
  // The scalar target computes what one lane of SSE4 does, and would take longer than all others.
  std::vector<std::string> targets = simd_targets();
  std::erase(targets, "SCALAR");
  for (const Accuracy& accuracy : kAccuracies) check_accuracy(accuracy, targets, 1, std::uint64_t{1} << 32);
}

}  // namespace
}  // namespace tally::elementwise_accuracy_test
