#pragma once

#include "tally/autograd/var.h"

namespace tally::ops {

/// y_i = exp(x_i - max x) / sum_j exp(x_j - max x) over the last dimension.
///
/// x [..., D] f32 or f64, D >= 0. Minus infinity is probability 0; a row of nothing else gives zeros, and gradient
/// zero. A NaN or an infinity above makes its row NaN. gx = y (gy - <gy, y>). Keeps y. Throws ShapeError for a scalar;
/// DTypeError.
Var softmax(const Var& x);

/// y_i = x_i - max x - log sum_j exp(x_j - max x) over the last dimension: the logarithm of softmax(), exact far below
/// 0.
///
/// Shapes, NaN and errors as softmax(). Minus infinity stays; in a row of nothing else all probabilities count as 0.
/// gx = gy - exp(y) sum_j gy_j. Keeps y.
Var log_softmax(const Var& x);

/// The same over another dimension (negative: from the end), by transposing it to the end and back.
Var softmax(const Var& x, int dim);
Var log_softmax(const Var& x, int dim);

}  // namespace tally::ops
