#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tally/core/io/json.h"
#include "tally/core/report/plot.h"

// Figures that were taken several times, and plots of them: what a study of trainings and a series of benchmark
// measurements (time or memory against length, say) have in common.

namespace tally::recsys {

/// Mean and sample standard deviation.
struct Spread {
  std::int64_t count = 0;
  std::optional<double> mean;       ///< of one value and more
  std::optional<double> deviation;  ///< of two values and more, by count - 1

  /// "0.1234" or "0.1234 ± 0.0056"; "-" without values.
  std::string to_text(int decimals) const;
};

Spread spread_of(const std::vector<double>& values);

/// One point of a plot: what was measured, under which setting, how often.
struct Measurement {
  std::string series;
  Json x;  ///< a number, or text for a category
  std::vector<double> values;
};

/// Means with their deviations as error bars. When every x is a number: lines, each series in ascending order of x.
/// Otherwise bars over the categories, in order of appearance. Measurements without values are left out. Throws
/// ValueError for two measurements at the same x of one series.
Plot plot_measurements(std::string title, PlotAxis x, PlotAxis y, const std::vector<Measurement>& measurements);

}  // namespace tally::recsys
