#include "tally/recsys/study/paired_test.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tally/core/parallel.h"

namespace tally::recsys {
namespace {

/// The continued fraction of I_x(a, b); converges fast for x below (a + 1) / (a + b + 2).
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  constexpr double kPrecision = std::numeric_limits<double>::epsilon();
  const auto away_from_zero = [](double value) { return std::abs(value) < kTiny ? kTiny : value; };
  double c = 1;
  double d = 1 / away_from_zero(1 - (a + b) * x / (a + 1));
  double fraction = d;
  // Needs about sqrt(max(a, b)) rounds.
  for (int i = 1; i < 100000; ++i) {
    const double m = i;
    for (const double term : {m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
                              -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))}) {
      d = 1 / away_from_zero(1 + term * d);
      c = away_from_zero(1 + term / c);
      fraction *= c * d;
    }
    if (std::abs(c * d - 1) <= kPrecision) break;
  }
  return fraction;
}

std::vector<double> differences_of(std::span<const double> treatment, std::span<const double> control) {
  check<ShapeError>(treatment.size() == control.size(), "paired test", "needs as many figures of one system as of the ",
                    "other; got ", treatment.size(), " and ", control.size());
  check<ValueError>(treatment.size() >= 2, "paired test", "needs at least two pairs; got ", treatment.size());
  std::vector<double> differences;
  for (std::size_t i = 0; i < treatment.size(); ++i) differences.push_back(treatment[i] - control[i]);
  return differences;
}

double mean_of(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

/// The t that a share of 0.975 stays below: bisection, to the last bit that matters.
double t_quantile_975(double freedom) {
  double low = 0, high = 1;
  while (student_t_cdf(high, freedom) < 0.975) high *= 2;
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    (student_t_cdf(middle, freedom) < 0.975 ? low : high) = middle;
  }
  return (low + high) / 2;
}

double percentile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

}  // namespace

double incomplete_beta(double a, double b, double x) {
  check<ValueError>(a > 0 && b > 0 && x >= 0 && x <= 1, "incomplete_beta",
                    "needs a, b > 0 and x in [0, 1]; got a = ", a, ", b = ", b, ", x = ", x);
  if (x == 0 || x == 1) return x;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
  return x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a : 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double student_t_cdf(double t, double freedom) {
  check<ValueError>(freedom > 0 && !std::isnan(t), "student_t_cdf", "needs a number and freedom > 0; got ", t, " and ",
                    freedom);
  if (std::isinf(t)) return t > 0 ? 1 : 0;
  const double tail = incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2;
  return t > 0 ? 1 - tail : tail;
}

PairedTest paired_t_test(std::span<const double> treatment, std::span<const double> control) {
  const std::vector<double> differences = differences_of(treatment, control);
  const auto n = static_cast<double>(differences.size());
  PairedTest test;
  test.pairs = static_cast<std::int64_t>(differences.size());
  test.difference = mean_of(differences);
  double squares = 0;
  for (const double difference : differences) squares += std::pow(difference - test.difference, 2);
  const double error = std::sqrt(squares / (n - 1) / n);
  // Twice the lower tail: 1 - cdf would lose small p-values.
  test.p_value = error > 0              ? 2 * student_t_cdf(-std::abs(test.difference) / error, n - 1)
                 : test.difference == 0 ? 1
                                        : 0;
  const double reach = error > 0 ? t_quantile_975(n - 1) * error : 0;
  test.low = test.difference - reach;
  test.high = test.difference + reach;
  return test;
}

PairedTest paired_bootstrap(std::span<const double> treatment, std::span<const double> control, RngKey key,
                            std::int64_t samples) {
  const std::vector<double> differences = differences_of(treatment, control);
  check<ValueError>(samples >= 1 && samples < (std::int64_t{1} << 32), "paired_bootstrap",
                    "needs a number of samples in [1, 2^32); got ", samples);
  PairedTest test;
  test.pairs = static_cast<std::int64_t>(differences.size());
  test.difference = mean_of(differences);
  std::vector<double> means(static_cast<std::size_t>(samples));
  // A sample is a row of the key: which thread draws it does not matter.
  parallel_for(samples, 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::uint32_t> bits(differences.size());
    for (std::int64_t s = begin; s < end; ++s) {
      random_bits(key, static_cast<std::uint64_t>(s), 0, test.pairs, bits.data());
      double sum = 0;
      for (const std::uint32_t word : bits) sum += differences[(std::uint64_t{word} * differences.size()) >> 32];
      means[static_cast<std::size_t>(s)] = sum / static_cast<double>(differences.size());
    }
  });
  const double observed = std::abs(test.difference);
  const auto as_far = std::count_if(means.begin(), means.end(),
                                    [&](double mean) { return std::abs(mean - test.difference) >= observed; });
  test.p_value = static_cast<double>(as_far + 1) / static_cast<double>(samples + 1);
  std::sort(means.begin(), means.end());
  test.low = percentile(means, 0.025);
  test.high = percentile(means, 0.975);
  return test;
}

}  // namespace tally::recsys
