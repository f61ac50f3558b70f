#pragma once

#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/reduce.h"

namespace tally::ops {

/// Bayesian personalized ranking (Rendle et al., UAI 2009): the mean of -log sigmoid(positive - negative) over all
/// pairs of scores, a scalar, as softplus(negative - positive), which does not overflow. Shapes broadcast: positive [T,
/// 1] is paired with each of negative [T, K]. Composed of other ops. Throws what they throw, ShapeError for no pairs.
inline Var bpr_loss(const Var& positive, const Var& negative) { return mean(softplus(negative - positive)); }

}  // namespace tally::ops
