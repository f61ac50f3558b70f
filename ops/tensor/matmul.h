#pragma once

#include "tally/autograd/var.h"

namespace tally::ops {

struct MatmulOptions {
  bool transpose_a = false;
  bool transpose_b = false;
};

/// Matrix product over the last two dimensions, as numpy.matmul: op(a) [..., m, k] times op(b) [..., k, n] gives [...,
/// m, n].
///
/// Leading (batch) dimensions broadcast; a matrix that meets many is read where it stands. A vector a [k] is a row, a
/// vector b [k] a column, which the result lacks: [k] times [..., k, n] gives [..., n], [..., m, k] times [k] gives
/// [..., m], and two vectors a scalar; vectors are not transposed. Gradients: ga = gy b^T, gb = a^T gy, summed over
/// what was repeated. Keeps a only when b is tracked and b only when a is. Throws ShapeError, DTypeError.
Var matmul(const Var& a, const Var& b, const MatmulOptions& options = {});

}  // namespace tally::ops
