#pragma once

#include <cstdint>
#include <vector>

#include "tally/autograd/var.h"

// Reductions. Sums accumulate in double over blocks that depend on sizes alone, so any number of threads gives the same
// bits. All throw DTypeError unless x is f32 or f64.

namespace tally::ops {

struct ReduceOptions {
  std::vector<std::int64_t> dims = {};  ///< reduced dimensions, negative ones from the end; empty: all
  bool keepdims = false;                ///< keep them with size 1 instead of dropping them
};

/// Sum over dimensions; 0 for none. gx repeats gy. Keeps nothing. Throws ShapeError for a dimension that x does not
/// have or that is named twice (so do mean, max and min).
Var sum(const Var& x, const ReduceOptions& options = {});

/// Mean over dimensions. gx repeats gy / count. Keeps nothing. Throws ShapeError for a mean of no elements.
Var mean(const Var& x, const ReduceOptions& options = {});

/// Largest element over dimensions; NaN when there is one. The gradient goes to one element: the first in row-major
/// order among equals, the first NaN if any. Keeps its index. Throws ShapeError for a maximum of no elements.
Var max(const Var& x, const ReduceOptions& options = {});

/// Smallest element over dimensions; otherwise like max.
Var min(const Var& x, const ReduceOptions& options = {});

struct ArgOptions {
  int dim = -1;           ///< negative: from the end
  bool keepdims = false;  ///< keep it with size 1 instead of dropping it
};

/// Where the largest element along a dimension stands, i64: the first of equals, the first NaN before every number
/// (numpy.argmax, torch.argmax). A constant: nothing is recorded. Throws ShapeError for a dimension that x does not
/// have or that is empty.
Tensor argmax(const Var& x, const ArgOptions& options = {});

/// Where the smallest stands; otherwise like argmax.
Tensor argmin(const Var& x, const ArgOptions& options = {});

/// y[i] = x[0] + ... + x[i] along a dimension (negative: from the end), accumulated in double. gx is the sum of gy from
/// i on. Keeps nothing. Throws ShapeError.
Var cumulative_sum(const Var& x, int dim);

/// log(sum(exp(x))) over the last dimension, which disappears; the maximum is subtracted first. -infinity over no
/// elements or over -infinities alone (gradient 0 there); infinity when one is, with gradients of NaN; NaN when one is.
/// gx = gy exp(x) / sum(exp(x)). Keeps x. Throws ShapeError for a scalar.
Var log_sum_exp(const Var& x);
/// The same over other dimensions, or all, by bringing them to the end. Throws as sum.
Var log_sum_exp(const Var& x, const ReduceOptions& options);

struct TopK {
  Var values;      ///< [..., k], descending
  Tensor indices;  ///< i64 [..., k], where they stand in the last dimension of x
};

/// The k largest elements along the last dimension, largest first; among equals the lowest index first. NaN counts as
/// larger than every number. The gradient of a value goes to the element it was. Keeps the indices. Time O(n log k) a
/// row. Throws ShapeError for a scalar, ValueError unless 0 <= k <= size of the last dimension.
TopK top_k(const Var& x, std::int64_t k);
/// The same along another dimension (negative: from the end), by transposing it to the end and back.
TopK top_k(const Var& x, std::int64_t k, int dim);

}  // namespace tally::ops
