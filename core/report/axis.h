#pragma once

#include <string>
#include <vector>

namespace tally {

/// Where values lie along an axis: linear, or logarithmic for values above 0.
struct AxisScale {
  double low = 0;
  double high = 1;
  bool is_log = false;

  /// Share of the axis, 0 at `low` and 1 at `high`.
  double position(double value) const;
};

/// The scale that holds all values with a little room at both ends; with `from_zero` a linear one begins at 0. Values
/// that are not finite, and with `is_log` those that are not above 0, do not count; without any it is [0, 1] or
/// [1, 10]. Values that are all the same lie in the middle.
AxisScale fit_scale(const std::vector<double>& values, bool is_log, bool from_zero = false);

/// Round values within the scale, about `count` of them, ascending: multiples of 1, 2 or 5 times a power of ten; on a
/// logarithmic axis powers of ten, joined by 2 and 5 times them when that would leave fewer than three.
std::vector<double> ticks(const AxisScale& scale, int count = 5);

/// A tick as text, short: 0.25, 1500 as "1,500", 20000 as "20k", 3e6 as "3M".
std::string format_tick(double value);

}  // namespace tally
