#pragma once

#include "tally/autograd/var.h"

namespace tally::ops {

struct MatmulOptions {
  bool transpose_a = false;
  bool transpose_b = false;
};

/// Matrix product over the last two dimensions: op(a) [..., m, k] times op(b) [..., k, n] gives [..., m, n].
///
/// Leading (batch) dimensions must be equal, or `b` has none and is shared by the batch. Gradients: ga = gy b^T, gb =
/// a^T gy (summed over the batch for a shared b). Keeps a only when b is tracked and b only when a is. Throws
/// ShapeError, DTypeError.
Var matmul(const Var& a, const Var& b, const MatmulOptions& options = {});

}  // namespace tally::ops
