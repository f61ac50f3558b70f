#include "tally/autograd/numeric_derivative.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace tally {
namespace {

/// Slopes at the steps h, h / 2, h / 4.
struct Ladder {
  std::array<double, 3> left, right, central, rounding;

  /// By how much the slopes to both sides differ.
  double gap(std::size_t i) const { return right[i] - left[i]; }
  /// What the function's noise does to the slopes: a smooth function's gaps halve with the step, but for h^3.
  double noise() const { return std::max(std::abs(gap(0) - 2 * gap(1)), std::abs(gap(1) - 2 * gap(2))); }
  /// Nothing moved at all.
  bool flat() const { return right == std::array<double, 3>{} && left == std::array<double, 3>{}; }
};

Ladder climb(const std::function<Change(double)>& change, double step) {
  Ladder ladder{};
  for (std::size_t i = 0; i < 3; ++i) {
    const double h = std::ldexp(step, -static_cast<int>(i));
    const Change up = change(h), down = change(-h);
    ladder.right[i] = up.value / h;
    ladder.left[i] = -down.value / h;
    ladder.central[i] = (up.value - down.value) / (2 * h);
    ladder.rounding[i] = (up.rounding + down.rounding) / (2 * h);
  }
  return ladder;
}

/// Gaps that stay (a kink at the point) or grow (a jump) as the step shrinks; a smooth function's halve.
bool gaps_stay(const Ladder& ladder, double tolerance) {
  if (std::abs(ladder.gap(2)) <= 10 * (tolerance + 2 * ladder.rounding[2])) return false;
  const auto stays = [&](std::size_t i) {
    const double ratio = ladder.gap(i + 1) / ladder.gap(i);
    return ratio > 0.75 && ratio < 2.5;
  };
  return stays(0) && stays(1);
}

/// A gap that vanishes at once: the kink lies between the steps.
bool gap_vanishes(const Ladder& ladder, double tolerance) {
  const double first = std::abs(ladder.gap(0));
  return first > 10 * (tolerance + 2 * ladder.rounding[0]) && std::abs(ladder.gap(2)) < 0.1 * first;
}

}  // namespace

NumericDerivative numeric_derivative(const std::function<Change(double)>& change,
                                     const NumericDerivativeOptions& options) {
  const auto tolerance = [&](double derivative) { return options.atol + options.rtol * std::abs(derivative); };

  const Ladder wide = climb(change, options.richardson_step);
  const double first = (4 * wide.central[1] - wide.central[0]) / 3,
               second = (4 * wide.central[2] - wide.central[1]) / 3;
  NumericDerivative result;
  result.value = (16 * second - first) / 15;
  result.error = std::max(std::abs(second - first), wide.noise()) + 2 * wide.rounding[2];
  result.left = wide.left[2];
  result.right = wide.right[2];
  const bool suspicious = gaps_stay(wide, tolerance(result.value));
  if (result.error <= 0.1 * tolerance(result.value) && !suspicious) return result;

  const Ladder narrow = climb(change, options.step);
  // 4 / 3: a slope that only converges like h is off by that much.
  const double error =
      4.0 / 3.0 *
          std::max(std::abs(narrow.central[0] - narrow.central[1]), std::abs(narrow.central[0] - narrow.central[2])) +
      narrow.rounding[0];
  // Noise of the function itself shows in the small steps; in the wide ones it is smaller by their ratio.
  result.error = std::max(result.error, error * options.step / (options.richardson_step / 4));
  const double disagreement = std::abs(narrow.central[0] - result.value);
  // A value rounded to steps does not move at all, though far away it moves on both sides.
  const bool unresolved = narrow.flat() && wide.left[2] * wide.right[2] != 0;
  const bool contradictory = !suspicious && (unresolved || disagreement > 3 * (error + result.error));
  // The comparison is negated so that NaN, from a wide step that left the function's domain, gives way too.
  if (suspicious || !(result.error <= error)) {
    result.value = narrow.central[0];
    result.error = error;
  }
  // Both estimates can't be right: one of them has missed noise.
  if (contradictory) result.error = disagreement;
  result.left = narrow.left[2];
  result.right = narrow.right[2];
  // Without a suspicion from the wide steps, what the small ones see is noise.
  const double close = tolerance(result.value);
  result.kink = suspicious && (gaps_stay(narrow, close) || gap_vanishes(narrow, close));
  return result;
}

}  // namespace tally
