#pragma once

#include "tally/autograd/var.h"

namespace tally::ops {

struct EmbeddingOptions {
  double scale = 1;  ///< factor of every row; SASRec's is sqrt(D)
};

/// Rows of a table: y[...] = scale * table[indices[...]].
///
/// table [N, D] f32 or f64   indices [...] i32 or i64 in [0, N). Returns [..., D].
/// The gradient of the table is a RowGrad: rows that no index names are not touched, equal indices are summed in order.
/// Keeps the indices. Throws IndexError with the position of an index outside the table; ShapeError, DTypeError.
Var embedding(const Var& table, const Tensor& indices, const EmbeddingOptions& options = {});

}  // namespace tally::ops
