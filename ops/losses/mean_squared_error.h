#pragma once

#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/reduce.h"

namespace tally::ops {

/// The mean of (prediction - target)^2 over all elements, a scalar; shapes broadcast. Composed of other ops: both
/// operands may be tracked. Throws what they throw, ShapeError for no elements.
inline Var mean_squared_error(const Var& prediction, const Var& target) { return mean(square(prediction - target)); }

}  // namespace tally::ops
