#pragma once

#include <cstdint>
#include <span>

#include "tally/core/random.h"

// Tests of whether two systems differ, on figures of the same users: paired, because users differ far more than
// systems.

namespace tally {

struct PairedComparison {
  std::int64_t pairs = 0;
  double difference = 0;  ///< mean of treatment - control
  double p_value = 1;     ///< two-sided
  double low = 0;         ///< 95 % interval of the difference
  double high = 0;
};

/// Student's paired t-test (two-sided), with the t interval. With no spread in the differences p is 1 when they are
/// zero and 0 otherwise. Throws ShapeError for spans of different lengths and ValueError for fewer than two pairs.
PairedComparison paired_t_test(std::span<const double> treatment, std::span<const double> control);

/// Paired bootstrap (Efron and Tibshirani 1993, 16.4): pairs are drawn with replacement `samples` times. The interval
/// is that of percentiles; p is how often a mean of the differences, centred at 0, is at least as far from 0 as the one
/// observed, (count + 1) / (samples + 1). A function of the key and the order of pairs. Throws as paired_t_test does.
PairedComparison paired_bootstrap(std::span<const double> treatment, std::span<const double> control, RngKey key,
                                  std::int64_t samples = 2000);

}  // namespace tally
