#include "tally/core/kernels.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "tally/core/error.h"
#include "tally/core/random.h"
#include "tally/core/simd.h"
#include "tests/core/on_each_target.h"
#include "tests/support/same_bits.h"

namespace kernels_test {

using namespace tally;
using test::on_each_target;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kEpsilon = std::numeric_limits<float>::epsilon();

/// Every tail from 0 to past two of the widest vectors (16 floats), and two long ones.
std::vector<std::int64_t> lengths() {
  std::vector<std::int64_t> all;
  for (std::int64_t n = 0; n <= 35; ++n) all.push_back(n);
  all.push_back(1000);
  all.push_back(4099);
  return all;
}

std::vector<float> draws(std::int64_t n, std::uint64_t seed, double low = -1, double high = 1) {
  Tensor tensor({n});
  fill_uniform(RngKey{seed}, tensor, low, high);
  return {tensor.data<float>(), tensor.data<float>() + n};
}

/// Number of elements that are not within `ulps` roundings of `magnitude` of what is expected.
template <class Expected, class Magnitude>
int count_wrong(const std::vector<float>& got, double ulps, Expected&& expected, Magnitude&& magnitude) {
  int wrong = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(static_cast<double>(got[i]) - expected(i));
    if (!(error <= ulps * kEpsilon * magnitude(i))) ++wrong;
  }
  return wrong;
}

double wide(float x) { return static_cast<double>(x); }

}  // namespace

TEST_CASE("elementwise kernels agree with plain double arithmetic on every target", "[kernels]") {
  on_each_target([] {
    for (const std::int64_t n : lengths()) {
      CAPTURE(n);
      const std::vector<float> x = draws(n, 1), y = draws(n, 2);
      const auto both = [&](std::size_t i) { return std::abs(wide(x[i])) + std::abs(wide(y[i])); };
      std::vector<float> out = y;
      kernels::add_into(out.data(), x.data(), n);
      CHECK(count_wrong(
                out, 0.5, [&](std::size_t i) { return wide(x[i]) + wide(y[i]); }, both) == 0);
      out = y;
      kernels::axpy(out.data(), -0.7f, x.data(), n);
      CHECK(count_wrong(
                out, 1, [&](std::size_t i) { return wide(-0.7f) * wide(x[i]) + wide(y[i]); }, both) == 0);
      out = x;
      kernels::scale(out.data(), 3.3f, n);
      CHECK(count_wrong(
                out, 0.5, [&](std::size_t i) { return wide(3.3f) * wide(x[i]); },
                [&](std::size_t i) { return 3.3 * std::abs(wide(x[i])); }) == 0);
      // In place: x is y.
      out = x;
      kernels::add_into(out.data(), out.data(), n);
      CHECK(count_wrong(
                out, 0, [&](std::size_t i) { return 2 * wide(x[i]); }, both) == 0);
    }
  });
}

TEST_CASE("sums agree with plain double arithmetic on every target", "[kernels]") {
  on_each_target([] {
    for (const std::int64_t n : lengths()) {
      CAPTURE(n);
      const std::vector<float> x = draws(n, 3), y = draws(n, 4);
      double sum = 0, squares = 0, dot = 0, dot_magnitude = 0, sum_magnitude = 0;
      float largest = -kInfinity;
      for (std::size_t i = 0; i < x.size(); ++i) {
        sum += wide(x[i]);
        sum_magnitude += std::abs(wide(x[i]));
        squares += wide(x[i]) * wide(x[i]);
        dot += wide(x[i]) * wide(y[i]);
        dot_magnitude += std::abs(wide(x[i]) * wide(y[i]));
        largest = std::max(largest, x[i]);
      }
      // Runs of 16 additions in f32 at most, then double.
      CHECK(std::abs(kernels::sum(x.data(), n) - sum) <= 20 * kEpsilon * sum_magnitude);
      CHECK(std::abs(kernels::sum_squares(x.data(), n) - squares) <= 20 * kEpsilon * squares);
      CHECK(std::abs(wide(kernels::dot(x.data(), y.data(), n)) - dot) <=
            static_cast<double>(n / 8 + 16) * kEpsilon * dot_magnitude);
      CHECK(kernels::max_value(x.data(), n) == largest);
    }
  });
}

TEST_CASE("a long sum keeps its accuracy", "[kernels]") {
  // Summed in f32 alone, even in 16 lanes, the roundings of equal terms add up to an error far above this bound.
  constexpr std::int64_t n = 1 << 20;
  const std::vector<float> x(static_cast<std::size_t>(n), 0.1f);
  on_each_target([&] {
    CHECK(kernels::sum(x.data(), n) == Approx(wide(0.1f) * n).epsilon(4 * kEpsilon));
    CHECK(kernels::sum_squares(x.data(), n) == Approx(wide(0.1f) * wide(0.1f) * n).epsilon(4 * kEpsilon));
  });
}

TEST_CASE("max_value handles negatives and infinities", "[kernels]") {
  on_each_target([] {
    for (const std::int64_t n : {1, 5, 16, 33}) {
      std::vector<float> x(static_cast<std::size_t>(n), -kInfinity);
      CHECK(kernels::max_value(x.data(), n) == -kInfinity);
      x.back() = -3.0f;
      CHECK(kernels::max_value(x.data(), n) == -3.0f);
      x.front() = kInfinity;
      CHECK(kernels::max_value(x.data(), n) == kInfinity);
    }
    CHECK(kernels::max_value(static_cast<const float*>(nullptr), 0) == -kInfinity);
  });
}

TEST_CASE("exp_and_sum is accurate over its whole range", "[kernels]") {
  on_each_target([] {
    for (const std::int64_t n : lengths()) {
      const std::vector<float> x = draws(n, 5, -87, 88);
      std::vector<float> y(x.size());
      const double total = kernels::exp_and_sum(y.data(), x.data(), 1.0f, 0.0f, n);
      const auto expected = [&](std::size_t i) { return std::exp(wide(x[i])); };
      CHECK(count_wrong(y, 2, expected, expected) == 0);
      double sum = 0;
      for (const float value : y) sum += wide(value);
      CHECK(std::abs(total - sum) <= 20 * kEpsilon * sum);
      std::vector<float> in_place = x;
      kernels::exp_and_sum(in_place.data(), in_place.data(), 1.0f, 0.0f, n);
      CHECK(test::same_bits(in_place, y));
    }
    const std::vector<float> x = draws(1000, 6, -20, 20);
    std::vector<float> y(x.size());
    kernels::exp_and_sum(y.data(), x.data(), 0.125f, 2.0f, 1000);
    // The argument is rounded to f32 before the exponential: half an ulp of at most 4.5.
    const auto expected = [&](std::size_t i) { return std::exp(0.125 * wide(x[i]) - 2.0); };
    CHECK(count_wrong(y, 2 + 4.5, expected, expected) == 0);
  });
}

TEST_CASE("exp_and_sum at the ends of the numbers", "[kernels]") {
  on_each_target([] {
    for (const std::int64_t n : {1, 3, 16, 37}) {
      const auto all = [n](float x, float shift) {
        std::vector<float> values(static_cast<std::size_t>(n), x);
        const double total = kernels::exp_and_sum(values.data(), values.data(), 1.0f, shift, n);
        for (const float value : values) CHECK((value == values.front() || std::isnan(value)));
        if (!std::isnan(total)) CHECK(total == Approx(wide(values.front()) * static_cast<double>(n)));
        return values.front();
      };
      CHECK(all(0, 0) == 1.0f);
      for (const float low : {-88.0f, -104.0f, -1e3f, -1e10f, -std::numeric_limits<float>::max(), -kInfinity}) {
        CHECK(all(low, 0) == 0.0f);
        CHECK(all(low, 3) == 0.0f);
      }
      for (const float high : {89.0f, 104.0f, 105.0f, 1e3f, 1e10f, kInfinity}) CHECK(all(high, 0) == kInfinity);
      // What is not a number stays so: a bad logit must not become a weight of zero.
      CHECK(std::isnan(all(std::numeric_limits<float>::quiet_NaN(), 0)));
      CHECK(std::isnan(all(kInfinity, kInfinity)));
    }
  });
}

TEST_CASE("an element's result does not depend on where it stands", "[kernels]") {
  const std::int64_t n = 53;
  const std::vector<float> x = draws(n, 7), w = draws(n, 8), m = draws(n, 9), v = draws(n, 10, 0, 1);
  const kernels::AdamStep step{.step_size = 0.01, .inverse_correction = 1.7, .decay = 0.003};
  on_each_target([&] {
    std::vector<float> axpy = w, exp = x, aw = w, am = m, av = v;
    kernels::axpy(axpy.data(), 0.3f, x.data(), n);
    kernels::exp_and_sum(exp.data(), exp.data(), 0.5f, 0.1f, n);
    kernels::adam_update(aw.data(), am.data(), av.data(), x.data(), n, step);
    for (std::int64_t first = 0; first < n; ++first) {
      for (const std::int64_t count : {std::int64_t{1}, std::int64_t{5}, n - first}) {
        if (first + count > n) continue;
        const auto part = [&](const std::vector<float>& from) {
          return std::vector<float>(from.begin() + first, from.begin() + first + count);
        };
        const std::vector<float> px = part(x);
        std::vector<float> paxpy = part(w), pexp = px, pw = part(w), pm = part(m), pv = part(v);
        kernels::axpy(paxpy.data(), 0.3f, px.data(), count);
        kernels::exp_and_sum(pexp.data(), pexp.data(), 0.5f, 0.1f, count);
        kernels::adam_update(pw.data(), pm.data(), pv.data(), px.data(), count, step);
        REQUIRE(test::same_bits(paxpy, part(axpy)));
        REQUIRE(test::same_bits(pexp, part(exp)));
        REQUIRE(test::same_bits(pw, part(aw)));
        REQUIRE(test::same_bits(pm, part(am)));
        REQUIRE(test::same_bits(pv, part(av)));
      }
    }
  });
}

TEST_CASE("adam_update agrees with the formula, with and without a gradient", "[kernels]") {
  const kernels::AdamStep step{.beta1 = 0.8, .beta2 = 0.95, .step_size = 0.02, .inverse_correction = 2, .decay = 0.01};
  on_each_target([&] {
    for (const std::int64_t n : lengths()) {
      for (const bool with_gradient : {true, false}) {
        const std::vector<float> w = draws(n, 11), m = draws(n, 12), v = draws(n, 13, 0.1, 1), g = draws(n, 14);
        std::vector<float> new_w = w, new_m = m, new_v = v;
        kernels::adam_update(new_w.data(), new_m.data(), new_v.data(), with_gradient ? g.data() : nullptr, n, step);
        std::vector<double> dw(w.begin(), w.end()), dm(m.begin(), m.end()), dv(v.begin(), v.end());
        const std::vector<double> dg(g.begin(), g.end());
        kernels::adam_update(dw.data(), dm.data(), dv.data(), with_gradient ? dg.data() : nullptr, n, step);
        const auto one = [](std::size_t) { return 1.0; };
        const auto m_at = [&](std::size_t i) { return 0.8 * wide(m[i]) + (with_gradient ? 0.2 * wide(g[i]) : 0); };
        const auto v_at = [&](std::size_t i) {
          return 0.95 * wide(v[i]) + (with_gradient ? 0.05 * wide(g[i]) * wide(g[i]) : 0);
        };
        const auto w_at = [&](std::size_t i) {
          return 0.99 * wide(w[i]) - 0.02 * m_at(i) / (std::sqrt(v_at(i)) * 2 + 1e-8);
        };
        CHECK(count_wrong(new_m, 2, m_at, one) == 0);
        CHECK(count_wrong(new_v, 2, v_at, one) == 0);
        CHECK(count_wrong(new_w, 3, w_at, one) == 0);
        for (std::size_t i = 0; i < w.size(); ++i) {
          REQUIRE(dm[i] == Approx(m_at(i)).epsilon(1e-12).margin(1e-14));
          REQUIRE(dv[i] == Approx(v_at(i)).epsilon(1e-12));
          REQUIRE(dw[i] == Approx(w_at(i)).epsilon(1e-12).margin(1e-14));
        }
      }
    }
  });
}

TEST_CASE("double kernels agree with plain loops", "[kernels]") {
  const std::vector<double> x{1, -2, 3.5}, y{0.5, 4, -1};
  std::vector<double> out = y;
  kernels::add_into(out.data(), x.data(), 3);
  CHECK(out == std::vector<double>{1.5, 2, 2.5});
  out = y;
  kernels::axpy(out.data(), 2, x.data(), 3);
  CHECK(out == std::vector<double>{2.5, 0, 6});
  kernels::scale(out.data(), -0.5, 3);
  CHECK(out == std::vector<double>{-1.25, 0, -3});
  CHECK(kernels::dot(x.data(), y.data(), 3) == -11);
  CHECK(kernels::sum(x.data(), 3) == 2.5);
  CHECK(kernels::sum_squares(x.data(), 3) == 17.25);
  CHECK(kernels::max_value(x.data(), 3) == 3.5);
  CHECK(kernels::max_value(x.data(), 0) == -std::numeric_limits<double>::infinity());
  CHECK(kernels::exp_and_sum(out.data(), x.data(), 1, 1, 3) == Approx(1 + std::exp(-3.0) + std::exp(2.5)));
  CHECK(out[1] == Approx(std::exp(-3.0)));
}

TEST_CASE("an unknown SIMD target is refused and nothing changes", "[kernels]") {
  set_simd_target(simd_targets().back());
  CHECK_THROWS_AS(set_simd_target("abacus"), ValueError);
  CHECK(simd_target() == simd_targets().back());
  set_simd_target("");
  CHECK(simd_target() == simd_targets().front());
}

}  // namespace kernels_test
