#pragma once

#include <vector>

#include "tally/autograd/checked_call.h"

namespace tally::detail {

/// Elements of a tensor that move together: element i by step * weights[i].
struct Moving {
  Tensor leaf;  ///< f64; shares its storage with what the function reads
  std::vector<double> gradient, weights;
};

/// How far each element of a leaf moves along a direction, with random signs.
enum class DirectionScale {
  elements,   ///< as far as a single element would: what all have to do with is seen to the last element
  gradients,  ///< the farther, the smaller its gradient: an element that matters 10,000 times less than the others
              ///< shows
};
/// Weights between 1/2 and 1 times that, of either sign: no element stands still. `gradient` may be empty, for zero.
std::vector<double> direction_weights(const Tensor& leaf, const std::vector<double>& gradient, DirectionScale scale,
                                      RngKey key);

/// The derivative along one direction, by the gradient and by differences.
struct DirectionalDerivative {
  double analytic = 0, numeric = 0;
  double tolerance = 0;
  bool measured = true;  ///< false on a kink, or when the differences are noisier than the tolerance
  double scaled() const;
  bool wrong() const { return measured && !(scaled() <= 1); }
};

/// Elements [begin, end) of each part move, and are put back. The tolerance is relative to the root of the sum of
/// squares of what the elements contribute: one wrong element of n shows unless it is off by less than
/// rtol * sqrt(n) of them.
DirectionalDerivative derivative_along(const CheckedCall& call, const std::vector<Moving>& parts, std::int64_t begin,
                                       std::int64_t end, const GradientCheckOptions& options);

/// The absolute part of the tolerance for a gradient: the measured derivative's own precision, and no more than atol.
/// `step` is the smallest that the derivative was taken with.
double absolute_tolerance(const CheckedCall& call, const NumericDerivative& numeric, double step,
                          const GradientCheckOptions& options);

}  // namespace tally::detail
