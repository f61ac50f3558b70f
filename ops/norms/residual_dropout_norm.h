#pragma once

#include "tally/autograd/var.h"
#include "tally/ops/elementwise/dropout.h"
#include "tally/ops/norms/norm_kind.h"

namespace tally::ops {

struct ResidualDropoutNormOptions {
  NormKind kind = NormKind::layer;
  double epsilon = 1e-5;
  DropoutOptions dropout = {};
};

struct NormedSum {
  Var normalized;
  Var sum;
};

/// sum = residual + dropout(x) and normalized = norm(sum) * weight + bias, in one pass over memory: what ends each half
/// of a transformer block. A pre-norm block carries `sum` on, a post-norm block `normalized`.
///
/// x, residual [..., D]   weight, bias [D] or absent. Both results [..., D]. The mask is that of dropout() with the
/// same options, the normalisation that of layer_norm() or rms_norm(). Gradients: gresidual = gsum + the norm's
/// gradient, gx = the mask times that; weight and bias as in layer_norm(). Keeps `sum` and three numbers a row (when x,
/// the residual or the weight is tracked); no mask and not x. Throws ShapeError, DTypeError; ValueError for a negative
/// epsilon, a rate outside [0, 1) or rows beyond 2^32.
NormedSum residual_dropout_norm(const Var& x, const Var& residual, const Var& weight = {}, const Var& bias = {},
                                const ResidualDropoutNormOptions& options = {});

}  // namespace tally::ops
