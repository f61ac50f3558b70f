#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "tally/core/parallel.h"
#include "tally/recsys/study/paired_test.h"

using namespace tally;
using namespace tally::recsys;

TEST_CASE("incomplete beta against closed forms", "[paired_test]") {
  for (const double x : {0.0, 0.01, 0.3, 0.5, 0.9, 1.0}) {
    CHECK(incomplete_beta(1, 1, x) == Approx(x).margin(1e-15));
    CHECK(incomplete_beta(3, 1, x) == Approx(x * x * x).margin(1e-15));
    CHECK(incomplete_beta(1, 4, x) == Approx(1 - std::pow(1 - x, 4)).margin(1e-15));
    // The arcsine law.
    CHECK(incomplete_beta(0.5, 0.5, x) == Approx(2 / std::numbers::pi * std::asin(std::sqrt(x))).margin(1e-14));
    CHECK(incomplete_beta(2.5, 7, x) == Approx(1 - incomplete_beta(7, 2.5, 1 - x)).margin(1e-14));
  }
  // A binomial tail: P(at least 3 of 5) at 0.4.
  CHECK(incomplete_beta(3, 3, 0.4) == Approx(0.31744).epsilon(1e-12));
  CHECK_THROWS_AS(incomplete_beta(0, 1, 0.5), ValueError);
  CHECK_THROWS_AS(incomplete_beta(1, 1, 1.5), ValueError);
}

TEST_CASE("Student's t against printed tables and closed forms", "[paired_test]") {
  // Critical values of the usual tables (two-sided 5 % and 1 %), printed to three decimals.
  const struct {
    double freedom, t, share;
  } kTable[] = {{1, 12.706, 0.975},  {2, 4.303, 0.975},  {5, 2.571, 0.975},  {10, 2.228, 0.975}, {30, 2.042, 0.975},
                {120, 1.980, 0.975}, {1, 63.657, 0.995}, {10, 3.169, 0.995}, {30, 2.750, 0.995}, {10, 1.812, 0.95}};
  for (const auto& [freedom, t, share] : kTable) {
    INFO(freedom << " degrees of freedom, t = " << t);
    CHECK(student_t_cdf(t, freedom) == Approx(share).margin(1e-4));
  }
  for (const double t : {-3.0, -0.2, 0.0, 0.7, 5.0, 40.0}) {
    CHECK(student_t_cdf(t, 1) == Approx(0.5 + std::atan(t) / std::numbers::pi).epsilon(1e-12));
    CHECK(student_t_cdf(t, 2) == Approx(0.5 + t / (2 * std::sqrt(2 + t * t))).epsilon(1e-12));
    // Many degrees of freedom: the normal distribution, with its first correction (t^3 + t) / 4n.
    const double n = 1e6;
    const double density = std::exp(-t * t / 2) / std::sqrt(2 * std::numbers::pi);
    const double normal = std::erfc(-t / std::numbers::sqrt2) / 2 - density * (t * t * t + t) / (4 * n);
    CHECK(student_t_cdf(t, n) == Approx(normal).margin(1e-10));
  }
  CHECK(student_t_cdf(std::numeric_limits<double>::infinity(), 3) == 1);
  CHECK_THROWS_AS(student_t_cdf(1, 0), ValueError);
}

TEST_CASE("paired t-test on published data", "[paired_test]") {
  // Student (Biometrika 1908), additional hours of sleep by two drugs on ten patients: t = 4.0621 on 9 degrees of
  // freedom, p = 0.002833, 95 % interval 0.7001 to 2.4599 (as R prints for its data set `sleep`).
  const std::vector<double> first{0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0};
  const std::vector<double> second{1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4};
  const PairedTest test = paired_t_test(second, first);
  CHECK(test.pairs == 10);
  CHECK(test.difference == Approx(1.58));
  CHECK(test.p_value == Approx(0.002833).margin(5e-7));
  CHECK(test.low == Approx(0.7001142).margin(1e-6));
  CHECK(test.high == Approx(2.4598858).margin(1e-6));
  const PairedTest other_way = paired_t_test(first, second);
  CHECK(other_way.difference == Approx(-1.58));
  CHECK(other_way.p_value == Approx(test.p_value));
}

TEST_CASE("paired tests without spread, and of wrong sizes", "[paired_test]") {
  const std::vector<double> same{1, 2, 3}, shifted{2, 3, 4}, shorter{1, 2}, one{1};
  CHECK(paired_t_test(same, same).p_value == 1);
  CHECK(paired_t_test(shifted, same).p_value == 0);
  CHECK(paired_bootstrap(same, same, RngKey{1}).p_value == 1);
  CHECK(paired_bootstrap(shifted, same, RngKey{1}, 99).p_value == Approx(0.01));
  CHECK_THROWS_AS(paired_t_test(same, shorter), ShapeError);
  CHECK_THROWS_AS(paired_t_test(one, one), ValueError);
  CHECK_THROWS_AS(paired_bootstrap(one, one, RngKey{1}), ValueError);
  CHECK_THROWS_AS(paired_bootstrap(same, same, RngKey{1}, 0), ValueError);
}

TEST_CASE("paired bootstrap agrees with the t-test on many pairs and is a function of its key", "[paired_test]") {
  const RngKey key{3, 5};
  std::vector<double> a, b;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    a.push_back(uniform(key, 0, i) + 0.015);
    b.push_back(0.5 * uniform(key, 0, i) + 0.5 * uniform(key, 1, i));
  }
  const PairedTest exact = paired_t_test(a, b);
  const PairedTest bootstrap = paired_bootstrap(a, b, RngKey{7}, 4000);
  CHECK(exact.p_value > 0.001);
  CHECK(bootstrap.p_value == Approx(exact.p_value).margin(0.03));
  CHECK(bootstrap.difference == exact.difference);
  const double width = exact.high - exact.low;
  CHECK(bootstrap.low == Approx(exact.low).margin(0.05 * width));
  CHECK(bootstrap.high == Approx(exact.high).margin(0.05 * width));
  CHECK(paired_bootstrap(a, b, RngKey{7}, 4000).low == bootstrap.low);
  CHECK(paired_bootstrap(a, b, RngKey{8}, 4000).low != bootstrap.low);
  const SerialScope serial;
  CHECK(paired_bootstrap(a, b, RngKey{7}, 4000).p_value == bootstrap.p_value);
}
