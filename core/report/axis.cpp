#include "tally/core/report/axis.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tally {
namespace {

constexpr double kRoom = 0.05;  // of the span, at both ends

}  // namespace

double AxisScale::position(double value) const {
  return is_log ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
}

AxisScale fit_scale(const std::vector<double>& values, bool is_log, bool from_zero) {
  bool found = false;
  double low = 0, high = 0;
  for (const double value : values) {
    if (!std::isfinite(value) || (is_log && value <= 0)) continue;
    low = found ? std::min(low, value) : value;
    high = found ? std::max(high, value) : value;
    found = true;
  }
  if (!found) return is_log ? AxisScale{1, 10, true} : AxisScale{};
  if (is_log) {
    const double room = low == high ? 2 : std::pow(high / low, kRoom);
    return {low / room, high * room, true};
  }
  if (from_zero) {
    low = std::min(low, 0.0);
    high = std::max(high, 0.0);
  }
  if (low == high)
    return {low - (low == 0 ? 1 : std::abs(low) / 2), high + (high == 0 ? 1 : std::abs(high) / 2), false};
  const double room = kRoom * (high - low);
  // An end at exactly zero stays: bars stand on it.
  return {from_zero && low == 0 ? 0 : low - room, from_zero && high == 0 ? 0 : high + room, false};
}

std::vector<double> ticks(const AxisScale& scale, int count) {
  std::vector<double> values;
  const auto within = [&](double value) {
    const double slack = 1e-9;
    return scale.position(value) >= -slack && scale.position(value) <= 1 + slack;
  };
  if (scale.is_log) {
    const auto first = static_cast<int>(std::floor(std::log10(scale.low)));
    const auto last = static_cast<int>(std::ceil(std::log10(scale.high)));
    // Every so many decades when there are more than wanted.
    const int stride = std::max(1, (last - first) / std::max(count, 1));
    for (int decade = first; decade <= last; decade += stride) {
      if (within(std::pow(10.0, decade))) values.push_back(std::pow(10.0, decade));
    }
    if (values.size() >= 3) return values;
    values.clear();
    for (int decade = first; decade <= last; ++decade) {
      for (const double factor : {1.0, 2.0, 5.0}) {
        if (within(factor * std::pow(10.0, decade))) values.push_back(factor * std::pow(10.0, decade));
      }
    }
    if (values.size() >= 2) return values;
    values.clear();
  }
  const double span = scale.high - scale.low;
  const double raw = span / std::max(count, 1);
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  // The nearest round step by ratio: the borders are geometric means.
  const double digits = raw / power;
  const double step = power * (digits < std::sqrt(2)    ? 1
                               : digits < std::sqrt(10) ? 2
                               : digits < std::sqrt(50) ? 5
                                                        : 10);
  const double first = std::ceil(scale.low / step - 1e-9);
  for (double i = first; i * step <= scale.high + 1e-9 * span; ++i) values.push_back(i == 0 ? 0 : i * step);
  return values;
}

std::string format_tick(double value) {
  const double size = std::abs(value);
  if (value == 0) return "0";
  if (size >= 1e15 || size < 1e-4) return fmt::format("{:.3g}", value);
  constexpr struct {
    double from, unit;
    const char* suffix;
  } kUnits[] = {{1e12, 1e12, "T"}, {1e9, 1e9, "G"}, {1e6, 1e6, "M"}, {1e4, 1e3, "k"}};
  for (const auto& [from, unit, suffix] : kUnits) {
    if (size >= from) return fmt::format("{:.4g}{}", value / unit, suffix);
  }
  if (size >= 1000 && value == std::round(value)) {
    const auto whole = static_cast<long long>(size);
    return fmt::format("{}{},{:03d}", value < 0 ? "-" : "", whole / 1000, whole % 1000);
  }
  return fmt::format("{:.4g}", value);
}

}  // namespace tally
