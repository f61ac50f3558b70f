#include <catch2/catch.hpp>
#include <cmath>
#include <numbers>
#include <span>
#include <vector>

#include "tally/core/parallel.h"
#include "tally/core/report/paired_comparison.h"

namespace paired_comparison_test {

using namespace tally;

TEST_CASE("p-values of one and two degrees of freedom against closed forms", "[paired_comparison]") {
  const auto t_of = [](const std::vector<double>& differences) {
    double sum = 0, squares = 0;
    const auto n = static_cast<double>(differences.size());
    for (const double each : differences) sum += each;
    for (const double each : differences) squares += std::pow(each - sum / n, 2);
    return std::abs(sum / n) / std::sqrt(squares / (n - 1) / n);
  };
  for (const double far : {0.1, 1.0, 7.5, 1e4}) {
    const std::vector<double> two{far, far + 1}, three{far - 1, far, far + 1.5}, zeros(3, 0.0);
    const double t1 = t_of(two), t2 = t_of(three);
    CHECK(paired_t_test(two, std::span(zeros).first(2)).p_value ==
          Approx(2 * std::atan(1 / t1) / std::numbers::pi).epsilon(1e-12));
    CHECK(paired_t_test(three, zeros).p_value == Approx(2 / (2 + t2 * t2 + t2 * std::sqrt(2 + t2 * t2))).epsilon(1e-9));
  }
}

TEST_CASE("paired t-test on published data", "[paired_comparison]") {
  // Student (Biometrika 1908), additional hours of sleep by two drugs on ten patients: t = 4.0621 on 9 degrees of
  // freedom, p = 0.002833, 95 % interval 0.7001 to 2.4599 (as R prints for its data set `sleep`).
  const std::vector<double> first{0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0};
  const std::vector<double> second{1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4};
  const PairedComparison test = paired_t_test(second, first);
  CHECK(test.pairs == 10);
  CHECK(test.difference == Approx(1.58));
  CHECK(test.p_value == Approx(0.002833).margin(5e-7));
  CHECK(test.low == Approx(0.7001142).margin(1e-6));
  CHECK(test.high == Approx(2.4598858).margin(1e-6));
  const PairedComparison other_way = paired_t_test(first, second);
  CHECK(other_way.difference == Approx(-1.58));
  CHECK(other_way.p_value == Approx(test.p_value));
}

TEST_CASE("paired tests without spread, and of wrong sizes", "[paired_comparison]") {
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

TEST_CASE("paired bootstrap agrees with the t-test on many pairs and is a function of its key", "[paired_comparison]") {
  const RngKey key{3, 5};
  std::vector<double> a, b;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    a.push_back(uniform(key, 0, i) + 0.015);
    b.push_back(0.5 * uniform(key, 0, i) + 0.5 * uniform(key, 1, i));
  }
  const PairedComparison exact = paired_t_test(a, b);
  const PairedComparison bootstrap = paired_bootstrap(a, b, RngKey{7}, 4000);
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

}  // namespace paired_comparison_test
