#include "tally/ops/tensor/shape.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/elementwise/broadcast.h"
#include "tally/ops/kernels/copy.h"

namespace tally::ops {
namespace {

int checked_dim(std::string_view op, const Shape& shape, int dim) {
  const int rank = shape.rank();
  check<ShapeError>(dim >= -rank && dim < rank, op, "needs a dimension in [", -rank, ", ", rank, ") for shape ", shape,
                    "; got ", dim);
  return shape.normalize(dim);
}

/// Elements before and after a dimension.
std::int64_t count_before(const Shape& shape, int dim) {
  std::int64_t count = 1;
  for (int d = 0; d < dim; ++d) count *= shape[d];
  return count;
}
std::int64_t count_after(const Shape& shape, int dim) {
  std::int64_t count = 1;
  for (int d = dim + 1; d < shape.rank(); ++d) count *= shape[d];
  return count;
}

/// Copies `source` into [begin, begin + its size) of `target` along a dimension.
void place(const Tensor& source, Tensor& target, int dim, std::int64_t begin) {
  if (source.numel() == 0) return;
  const Tensor from = source.contiguous();
  const std::int64_t unit = count_after(target.shape(), dim) * static_cast<std::int64_t>(size_of(target.dtype()));
  const std::int64_t piece = source.dim(dim) * unit, row = target.dim(dim) * unit;
  kernels::copy_pieces(from.raw_data(), piece, target.mutable_raw_data() + begin * unit, row,
                       count_before(target.shape(), dim), piece);
}

/// Indices as i64, checked against the number of rows.
Tensor checked_indices(std::string_view op, const Tensor& indices, std::int64_t rows) {
  check<DTypeError>(indices.dtype() == DType::i32 || indices.dtype() == DType::i64, op,
                    "needs i32 or i64 indices; got ", indices.dtype(), indices.shape());
  Tensor whole = indices.to(DType::i64).contiguous();
  std::int64_t position = 0;
  for (const std::int64_t index : whole.span<std::int64_t>()) {
    check<IndexError>(index >= 0 && index < rows, op, "needs indices in [0, ", rows, "); got ", index, " at position ",
                      position);
    ++position;
  }
  return whole;
}

/// Shape of the rows that indices select: theirs, then that of a row of x.
Shape selected_shape(std::string_view op, const Shape& x, const Shape& indices) {
  check<ShapeError>(x.rank() >= 1 && x.rank() - 1 + indices.rank() <= kMaxRank, op, "needs rows, and at most ",
                    kMaxRank, " dimensions in all; got x ", x, " and indices ", indices);
  std::vector<std::int64_t> sizes(indices.begin(), indices.end());
  sizes.insert(sizes.end(), x.begin() + 1, x.end());
  return Shape(std::span<const std::int64_t>(sizes));
}

Tensor gathered(const Tensor& x, const Tensor& indices, const Shape& shape) {
  const Tensor source = x.contiguous();
  Tensor result(shape, x.dtype());
  const std::int64_t bytes = count_after(x.shape(), 0) * static_cast<std::int64_t>(size_of(x.dtype()));
  if (result.numel() == 0) return result;
  const std::byte* from = source.raw_data();
  const std::int64_t* at = indices.data<std::int64_t>();
  std::byte* to = result.mutable_raw_data();
  parallel_for(indices.numel(), std::max<std::int64_t>(1, 4 * kElementGrain / bytes),
               [&](std::int64_t begin, std::int64_t end) {
                 kernels::gather_rows(from, at + begin, to + begin * bytes, end - begin, bytes);
               });
  return result;
}

/// target[indices[i]] += values[i], in order of i for each element: columns are shared out, rows are not.
void add_at(Tensor& target, const Tensor& indices, const Tensor& values) {
  if (values.numel() == 0) return;
  const std::int64_t width = count_after(target.shape(), 0);
  dispatch_floating(target.dtype(), "index_add", [&]<class T>(T) {
    T* to = target.mutable_data<T>();
    const std::int64_t* at = indices.data<std::int64_t>();
    const T* from = values.data<T>();
    parallel_for(width, 256, [&](std::int64_t begin, std::int64_t end) {
      kernels::add_rows_at(to, at, from, indices.numel(), width, begin, end);
    });
  });
}

struct ReshapeRule {
  static constexpr std::string_view name = "reshape";
  Shape shape;

  void backward(BackwardContext& g) const { g.give(0, g.cotangent().reshape(shape)); }
};

struct TransposeRule {
  static constexpr std::string_view name = "transpose";
  int a, b;

  void backward(BackwardContext& g) const { g.give(0, g.cotangent().transpose(a, b).contiguous()); }
};

struct SliceRule {
  static constexpr std::string_view name = "slice";
  Shape shape;
  int dim;
  std::int64_t begin;

  void backward(BackwardContext& g) const {
    Tensor gx = Tensor::zeros(shape, g.cotangent().dtype());
    place(g.cotangent(), gx, dim, begin);
    g.give(0, std::move(gx));
  }
};

struct ConcatRule {
  static constexpr std::string_view name = "concat";
  int dim;
  std::vector<std::int64_t> begins;  // of each input, and the end

  void backward(BackwardContext& g) const {
    for (int i = 0; i < g.inputs(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (g.needs(i)) g.give(i, g.cotangent().slice(dim, begins[at], begins[at + 1]).contiguous());
    }
  }
};

struct ExpandRule {
  static constexpr std::string_view name = "expand";
  Shape shape;

  void backward(BackwardContext& g) const { g.give(0, sum_to(g.cotangent(), shape)); }
};

struct GatherRule {
  static constexpr std::string_view name = "gather";
  Shape shape;
  Saved indices;

  void backward(BackwardContext& g) const {
    Tensor gx = Tensor::zeros(shape, g.cotangent().dtype());
    add_at(gx, indices.get(), g.cotangent());
    g.give(0, std::move(gx));
  }
};

struct IndexAddRule {
  static constexpr std::string_view name = "index_add";
  Shape values_shape;
  Saved indices;

  void backward(BackwardContext& g) const {
    if (g.needs(2)) g.give(2, gathered(g.cotangent(), indices.get(), values_shape));
    if (g.needs(0)) g.give(0, g.cotangent());
  }
};

}  // namespace

Var reshape(const Var& x, const Shape& shape) { return record(ReshapeRule{x.shape()}, {&x}, x.value().reshape(shape)); }

Var reshape(const Var& x, std::initializer_list<std::int64_t> sizes) {
  return record(ReshapeRule{x.shape()}, {&x}, x.value().reshape(sizes));
}

Var transpose(const Var& x, int a, int b) {
  const int from = checked_dim("transpose", x.shape(), a), to = checked_dim("transpose", x.shape(), b);
  return record(TransposeRule{from, to}, {&x}, x.value().transpose(from, to).contiguous());
}

Var slice(const Var& x, int dim, std::int64_t begin, std::int64_t end) {
  const int axis = checked_dim("slice", x.shape(), dim);
  return record(SliceRule{x.shape(), axis, begin}, {&x}, x.value().slice(axis, begin, end).contiguous());
}

Var concat(std::span<const Var> inputs, int dim) {
  check<ShapeError>(!inputs.empty(), "concat", "needs at least one input; got none");
  const Shape& first = inputs[0].shape();
  const int axis = checked_dim("concat", first, dim);
  std::vector<const Var*> edges;
  std::vector<std::int64_t> begins{0};
  for (const Var& input : inputs) {
    check<DTypeError>(input.dtype() == inputs[0].dtype(), "concat", "needs inputs of one type; got ", inputs[0].dtype(),
                      first, " and ", input.dtype(), input.shape());
    check<ShapeError>(input.rank() == first.rank() && input.shape().without(axis) == first.without(axis), "concat",
                      "needs inputs whose sizes agree outside dimension ", axis, "; got ", first, " and ",
                      input.shape());
    begins.push_back(begins.back() + input.dim(axis));
    edges.push_back(&input);
  }
  Shape shape = first;
  shape.set(axis, begins.back());
  Tensor result(Shape(shape.sizes()), inputs[0].dtype());
  for (std::size_t i = 0; i < inputs.size(); ++i) place(inputs[i].value(), result, axis, begins[i]);
  std::vector<Tensor> outputs;
  outputs.push_back(std::move(result));
  return std::move(
      record(ConcatRule{axis, std::move(begins)}, std::span<const Var* const>(edges), std::move(outputs))[0]);
}

Var concat(std::initializer_list<Var> inputs, int dim) { return concat(std::span(inputs.begin(), inputs.size()), dim); }

Var expand(const Var& x, const Shape& shape) {
  return record(ExpandRule{x.shape()}, {&x}, x.value().expand(shape).contiguous());
}

Var gather(const Var& x, const Tensor& indices) {
  const Shape shape = selected_shape("gather", x.shape(), indices.shape());
  Tensor rows = checked_indices("gather", indices, x.dim(0));
  Tensor y = gathered(x.value(), rows, shape);
  return record(GatherRule{x.shape(), Saved(std::move(rows), x.tracked())}, {&x}, std::move(y));
}

Var index_add(const Var& x, const Tensor& indices, const Var& values) {
  check<DTypeError>(x.dtype() == values.dtype() && is_floating(x.dtype()), "index_add",
                    "needs equal floating types; got ", x.dtype(), x.shape(), " and ", values.dtype(), values.shape());
  const Shape shape = selected_shape("index_add", x.shape(), indices.shape());
  check<ShapeError>(values.shape() == shape, "index_add", "needs values ", shape, " for x ", x.shape(), " and indices ",
                    indices.shape(), "; got ", values.shape());
  Tensor rows = checked_indices("index_add", indices, x.dim(0));
  Tensor y = x.value().clone();
  add_at(y, rows, values.value().contiguous());
  const Var constant_indices(indices);
  return record(IndexAddRule{values.shape(), Saved(std::move(rows), values.tracked())},
                {&x, &constant_indices, &values}, std::move(y));
}

}  // namespace tally::ops
