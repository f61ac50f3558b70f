#pragma once

#include "tally/autograd/var.h"
#include "tally/ops/elementwise/activation.h"

namespace tally::ops {

struct LinearOptions {
  Activation activation = Activation::none;
};

/// y = activation(x W^T + b), the bias and the activation applied to each tile of the product while it is in cache.
///
/// x [..., in]   weight [out, in]   bias [out] or absent   all f32 or all f64. Returns [..., out].
/// Gradients: with gz = gy * activation'(z), gx = gz W, gW = gz^T x, gb = the column sums of gz (fixed blocks of rows,
/// in double). The slope of relu at 0 is 0. Keeps x only when the weight is tracked, the weight only when x is, and for
/// the slope: one bit per output for relu, the sum before the activation for gelu and silu, the output for tanh and
/// sigmoid. Throws ShapeError, DTypeError.
Var linear(const Var& x, const Var& weight, const Var& bias = {}, const LinearOptions& options = {});

}  // namespace tally::ops
