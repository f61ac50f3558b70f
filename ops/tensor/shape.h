#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "tally/autograd/var.h"

// Ops that move elements without changing them. They take every dtype (integers are constants) and keep only indices.

namespace tally::ops {

/// The same elements, row-major, in another shape; shares the storage of a contiguous x. In the form with a list one
/// size may be -1 and is inferred. Throws ShapeError unless the numbers of elements agree.
Var reshape(const Var& x, const Shape& shape);
Var reshape(const Var& x, std::initializer_list<std::int64_t> sizes);

/// Dimensions a and b exchanged (negative: from the end), row-major; shares the storage of x where no element moves.
/// Throws ShapeError.
Var transpose(const Var& x, int a, int b);

/// Dimensions in another order: dimension d of the result is dimension dims[d] of x (negative: from the end), as
/// numpy.transpose and torch.permute; row-major. Throws ShapeError unless dims names each dimension once.
Var permute(const Var& x, std::span<const std::int64_t> dims);
Var permute(const Var& x, std::initializer_list<std::int64_t> dims);

/// The order of elements reversed along dimensions (numpy.flip, torch.flip); none: x as it is. Throws ShapeError for a
/// dimension that x does not have or that is named twice.
Var reverse(const Var& x, std::span<const std::int64_t> dims);
Var reverse(const Var& x, std::initializer_list<std::int64_t> dims);

struct PadOptions {
  std::vector<std::int64_t> before = {};  ///< elements added before each dimension of x
  std::vector<std::int64_t> after = {};   ///< and after it
  double value = 0;
};
/// x with a border of a constant, as numpy.pad(mode="constant"). The value is rounded to the type of x. The gradient of
/// the border is dropped. Throws ShapeError unless both lists have a size of at least 0 for each dimension; ValueError
/// for a value that does not fit.
Var pad(const Var& x, const PadOptions& options);

/// [begin, end) along a dimension; along the first it shares the storage of a contiguous x. The gradient elsewhere is
/// 0. Throws ShapeError for the dimension, IndexError unless 0 <= begin <= end <= its size.
Var slice(const Var& x, int dim, std::int64_t begin, std::int64_t end);

/// The inputs one after the other along a dimension. Throws ShapeError unless their other sizes agree and there is at
/// least one input; DTypeError unless they have one type.
Var concat(std::span<const Var> inputs, int dim);
Var concat(std::initializer_list<Var> inputs, int dim);

/// Inputs of one shape along a new dimension, before which dim of theirs stand (negative: from the end of the
/// result's). Throws as concat.
Var stack(std::span<const Var> inputs, int dim);
Var stack(std::initializer_list<Var> inputs, int dim);

/// Pieces of the given sizes one after the other along a dimension. Throws ShapeError unless the sizes are at least 0
/// and add up to the dimension's.
std::vector<Var> split(const Var& x, std::span<const std::int64_t> sizes, int dim);
std::vector<Var> split(const Var& x, std::initializer_list<std::int64_t> sizes, int dim);

/// Sizes of 1 and missing leading dimensions repeated to reach `shape`; shares the storage of x where nothing repeats.
/// The gradient is summed back. Throws ShapeError.
Var expand(const Var& x, const Shape& shape);

/// Rows of x [N, ...] by index: y[i] = x[indices[i]]. `indices` i32 or i64 of any shape; y has their shape and then
/// that of a row. gx is the index_add of gy: dense, for activations; a table of parameters wants `embedding`, whose
/// gradient is sparse. Throws ShapeError for a scalar x, DTypeError, IndexError for an index outside [0, N).
Var gather(const Var& x, const Tensor& indices);

/// y = x, then y[indices[i]] += values[i] in order of i, in the type of x, so equal indices give the same bits each
/// time. x [N, ...], indices i32 or i64 of any shape, values with their shape and then that of a row. gx = gy, gvalues
/// = gather(gy, indices). Throws ShapeError, DTypeError, IndexError.
Var index_add(const Var& x, const Tensor& indices, const Var& values);

/// Elements by index along a dimension, torch.gather: y[i][j][k] = x[indices[i][j][k]][j][k] along the first of three.
/// `indices` i32 or i64 with the rank of x, along other dimensions at most as large; y has their shape. The gradient is
/// the scatter_add of gy. Throws ShapeError, DTypeError, IndexError for an index outside the dimension.
Var gather_along(const Var& x, int dim, const Tensor& indices);

/// y = x, then y[indices[i][j][k]][j][k] += values[i][j][k] along the first of three dimensions, in row-major order and
/// in the type of x (torch.scatter_add): equal indices give the same bits each time. Indices as of gather_along; values
/// have their shape. gx = gy, gvalues = gather_along(gy, dim, indices). Throws ShapeError, DTypeError, IndexError.
Var scatter_add(const Var& x, int dim, const Tensor& indices, const Var& values);

/// 1 where the last dimension's place is the index, else 0: [...] in [0, classes) gives [..., classes], of any type.
/// A constant. Throws DTypeError unless indices are i32 or i64; IndexError for one outside, ValueError for negative
/// classes.
Tensor one_hot(const Tensor& indices, std::int64_t classes, DType dtype = DType::f32);

}  // namespace tally::ops
