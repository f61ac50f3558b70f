#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"

// The rows of each packed sequence made one: x [T, D] f32 or f64 and offsets [N + 1] give [N, D]. A sequence without
// rows gives a row of 0, which no gradient leaves. All throw ShapeError unless the sequences cover x, and DTypeError.

namespace tally::ops {

/// Sums, accumulated in double. gx repeats gy. Keeps nothing.
Var segment_sum(const Var& x, const Offsets& offsets);

/// Means, accumulated in double. gx repeats gy / rows. Keeps nothing.
Var segment_mean(const Var& x, const Offsets& offsets);

/// The largest element of each column; NaN when there is one. The gradient goes to one element: the first among equals,
/// the first NaN if any. Keeps its index.
Var segment_max(const Var& x, const Offsets& offsets);

/// The last row: last_rows() of one.
Var segment_last(const Var& x, const Offsets& offsets);

}  // namespace tally::ops
