#pragma once

#include "tally/autograd/var.h"

namespace tally::ops {

/// Weighted sums of rows of a table: y[t] = sum_j weights[t, j] table[indices[t, j]].
///
/// table [N, D] f32 or f64   indices [T, m] i64 in [0, N)   weights [T, m] of the table's type. Returns [T, D].
/// The gradient of the table is a RowGrad of the rows that are named, each summed in the order of its places. Keeps
/// indices, weights and, where the weights' gradient is wanted, the table. Throws IndexError with the position of an
/// index outside the table; ShapeError, DTypeError.
Var embedding_bag(const Var& table, const Tensor& indices, const Var& weights);

}  // namespace tally::ops
