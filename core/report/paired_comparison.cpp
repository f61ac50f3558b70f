#include "tally/core/report/paired_comparison.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <vector>

#include "tally/core/parallel.h"

namespace tally {
namespace {

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

double percentile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

}  // namespace

PairedComparison paired_t_test(std::span<const double> treatment, std::span<const double> control) {
  const std::vector<double> differences = differences_of(treatment, control);
  const auto n = static_cast<double>(differences.size());
  PairedComparison test;
  test.pairs = static_cast<std::int64_t>(differences.size());
  test.difference = mean_of(differences);
  double squares = 0;
  for (const double difference : differences) squares += std::pow(difference - test.difference, 2);
  const double error = std::sqrt(squares / (n - 1) / n);
  // Twice the lower tail: 1 - cdf would lose small p-values.
  const boost::math::students_t_distribution<double> distribution(n - 1);
  test.p_value = error > 0              ? 2 * boost::math::cdf(distribution, -std::abs(test.difference) / error)
                 : test.difference == 0 ? 1
                                        : 0;
  const double reach = error > 0 ? boost::math::quantile(distribution, 0.975) * error : 0;
  test.low = test.difference - reach;
  test.high = test.difference + reach;
  return test;
}

PairedComparison paired_bootstrap(std::span<const double> treatment, std::span<const double> control, RngKey key,
                                  std::int64_t samples) {
  const std::vector<double> differences = differences_of(treatment, control);
  check<ValueError>(samples >= 1 && samples < (std::int64_t{1} << 32), "paired_bootstrap",
                    "needs a number of samples in [1, 2^32); got ", samples);
  PairedComparison test;
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

}  // namespace tally
