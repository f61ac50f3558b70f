#pragma once

#include <functional>

namespace tally {

/// How much a function changed when its argument moved, with a bound on the rounding error of that difference.
struct Change {
  double value = 0;
  double rounding = 0;
};

struct NumericDerivativeOptions {
  double step = 1e-6;             ///< of the central difference
  double richardson_step = 1e-3;  ///< first of the three steps h, h / 2, h / 4 that are extrapolated
  double rtol = 1e-6;             ///< precision wanted: atol + rtol |derivative|
  double atol = 1e-9;
};

struct NumericDerivative {
  double value = 0;
  double error = 0;            ///< estimate of its own error: disagreement between steps, plus rounding
  bool kink = false;           ///< the slopes to the left and to the right stay apart as the step shrinks
  double left = 0, right = 0;  ///< one-sided slopes at the smallest step taken
};

/// Derivative at 0 of a function known by `change(delta) = f(delta) - f(0)`.
///
/// Takes six values for a Richardson extrapolation of central differences, exact to h^6. When that is not precise
/// enough, or the one-sided slopes look like a kink, takes six more with the small step and keeps the estimate with the
/// smaller error. A smooth function's one-sided slopes approach each other in proportion to the step; at a kink they do
/// not.
NumericDerivative numeric_derivative(const std::function<Change(double delta)>& change,
                                     const NumericDerivativeOptions& options = {});

}  // namespace tally
