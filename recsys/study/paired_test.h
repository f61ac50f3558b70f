#pragma once

#include <cstdint>
#include <span>

#include "tally/core/random.h"

// Tests of whether two systems differ, on figures of the same users: paired, because users differ far more than
// systems.

namespace tally::recsys {

/// Regularized incomplete beta function I_x(a, b) for a, b > 0 and x in [0, 1]: the continued fraction of Didonato and
/// Morris as in Numerical Recipes 6.4, evaluated by Lentz's method. Throws ValueError outside the domain.
double incomplete_beta(double a, double b, double x);

/// P(T <= t) for Student's t distribution with `freedom` > 0 degrees of freedom.
double student_t_cdf(double t, double freedom);

struct PairedTest {
  std::int64_t pairs = 0;
  double difference = 0;  ///< mean of treatment - control
  double p_value = 1;     ///< two-sided
  double low = 0;         ///< 95 % interval of the difference
  double high = 0;
};

/// Student's paired t-test (two-sided), with the t interval. With no spread in the differences p is 1 when they are
/// zero and 0 otherwise. Throws ShapeError for spans of different lengths and ValueError for fewer than two pairs.
PairedTest paired_t_test(std::span<const double> treatment, std::span<const double> control);

/// Paired bootstrap (Efron and Tibshirani 1993, 16.4): pairs are drawn with replacement `samples` times. The interval
/// is that of percentiles; p is how often a mean of the differences, centred at 0, is at least as far from 0 as the one
/// observed, (count + 1) / (samples + 1). A function of the key and the order of pairs. Throws as paired_t_test does.
PairedTest paired_bootstrap(std::span<const double> treatment, std::span<const double> control, RngKey key,
                            std::int64_t samples = 2000);

}  // namespace tally::recsys
