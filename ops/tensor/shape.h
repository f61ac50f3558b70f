#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>

#include "tally/autograd/var.h"

// Ops that move elements without changing them. They take every dtype (integers are constants) and keep only indices.

namespace tally::ops {

/// The same elements, row-major, in another shape; shares the storage of a contiguous x. In the form with a list one
/// size may be -1 and is inferred. Throws ShapeError unless the numbers of elements agree.
Var reshape(const Var& x, const Shape& shape);
Var reshape(const Var& x, std::initializer_list<std::int64_t> sizes);

/// Dimensions a and b exchanged (negative: from the end); a copy, row-major. Throws ShapeError.
Var transpose(const Var& x, int a, int b);

/// [begin, end) along a dimension; along the first it shares the storage of a contiguous x. The gradient elsewhere is
/// 0. Throws ShapeError for the dimension, IndexError unless 0 <= begin <= end <= its size.
Var slice(const Var& x, int dim, std::int64_t begin, std::int64_t end);

/// The inputs one after the other along a dimension. Throws ShapeError unless their other sizes agree and there is at
/// least one input; DTypeError unless they have one type.
Var concat(std::span<const Var> inputs, int dim);
Var concat(std::initializer_list<Var> inputs, int dim);

/// Sizes of 1 and missing leading dimensions repeated to reach `shape`; a copy. The gradient is summed back.
/// Throws ShapeError.
Var expand(const Var& x, const Shape& shape);

/// Rows of x [N, ...] by index: y[i] = x[indices[i]]. `indices` i32 or i64 of any shape; y has their shape and then
/// that of a row. gx is the index_add of gy: dense, for activations; a table of parameters wants `embedding`, whose
/// gradient is sparse. Throws ShapeError for a scalar x, DTypeError, IndexError for an index outside [0, N).
Var gather(const Var& x, const Tensor& indices);

/// y = x, then y[indices[i]] += values[i] in order of i, in the type of x, so equal indices give the same bits each
/// time. x [N, ...], indices i32 or i64 of any shape, values with their shape and then that of a row. gx = gy, gvalues
/// = gather(gy, indices). Throws ShapeError, DTypeError, IndexError.
Var index_add(const Var& x, const Tensor& indices, const Var& values);

}  // namespace tally::ops
