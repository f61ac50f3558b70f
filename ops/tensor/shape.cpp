#include "tally/ops/tensor/shape.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/elementwise/broadcast.h"
#include "tally/ops/kernels/copy.h"
#include "tally/ops/kernels/reduce.h"
#include "tally/ops/tensor/dimension.h"

namespace tally::ops {
namespace {

using detail::checked_dim;

/// Of ops that need not read their input: without a dimension to turn or to widen.
void check_given(std::string_view op, const Var& x) {
  check<ValueError>(x.defined(), op, "needs x; got one that is undefined");
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

/// The dimensions named, each at most once.
std::vector<int> checked_dims(std::string_view op, const Shape& shape, std::span<const std::int64_t> dims) {
  std::vector<int> result;
  for (const std::int64_t dim : dims) {
    check<ShapeError>(dim >= -kMaxRank && dim <= kMaxRank, op, "needs dimensions of shape ", shape, "; got ", dim);
    const int axis = checked_dim(op, shape, static_cast<int>(dim));
    check<ShapeError>(std::find(result.begin(), result.end(), axis) == result.end(), op,
                      "needs each dimension once; got ", dim, " twice for shape ", shape);
    result.push_back(axis);
  }
  return result;
}

/// Dimension d of the result is dims[d] of x: a view, by exchanges that bring one dimension after the other to its
/// place.
Tensor permuted(Tensor x, std::vector<int> dims) {
  for (int d = 0; d < x.rank(); ++d) {
    const int from = dims[static_cast<std::size_t>(d)];
    x = x.transpose(d, from);
    // What stood at d stands at `from` now.
    std::replace(dims.begin() + d + 1, dims.end(), d, from);
  }
  return x.contiguous();
}

Tensor reversed(const Tensor& x, const std::vector<int>& dims) {
  Tensor result = x.contiguous();
  for (const int dim : dims) {
    const Tensor from = result;
    result = Tensor(x.shape(), x.dtype());
    if (x.numel() == 0) continue;
    kernels::reverse_pieces(from.raw_data(), result.mutable_raw_data(), count_before(x.shape(), dim), x.dim(dim),
                            count_after(x.shape(), dim) * static_cast<std::int64_t>(size_of(x.dtype())));
  }
  return result;
}

/// Where the elements stand in a tensor of `shape` that indices name along a dimension.
Tensor positions_along(std::string_view op, const Shape& shape, int dim, const Tensor& indices) {
  bool fits = indices.rank() == shape.rank();
  for (int d = 0; fits && d < shape.rank(); ++d) fits = d == dim || indices.dim(d) <= shape[d];
  check<ShapeError>(fits, op, "needs indices of the rank of x, and no larger outside dimension ", dim, "; got x ",
                    shape, " and indices ", indices.shape());
  const Tensor whole = checked_indices(op, indices, shape[dim]);
  std::array<std::int64_t, kMaxRank> strides{};
  for (int d = 0; d < shape.rank(); ++d) strides[static_cast<std::size_t>(d)] = count_after(shape, d);
  Tensor positions(indices.shape(), DType::i64);
  kernels::positions_along(whole.data<std::int64_t>(), indices.shape().begin(), strides.data(), shape.rank(), dim,
                           positions.mutable_data<std::int64_t>());
  return positions;
}

/// target[positions[i]] += values[i], in order, of single elements.
void add_elements(std::string_view op, Tensor& target, const Tensor& positions, const Tensor& values) {
  dispatch_floating(target.dtype(), op, [&]<class T>(T) {
    kernels::scatter_add(target.mutable_data<T>(), positions.data<std::int64_t>(), values.data<T>(), values.numel());
  });
}

/// x as rows of one element.
Shape single_elements(const Shape& shape) { return Shape{shape.numel()}; }

void check_floating_pair(std::string_view op, const Var& x, const Var& values) {
  check<DTypeError>(x.dtype() == values.dtype() && is_floating(x.dtype()), op, "needs equal floating types; got ",
                    x.dtype(), x.shape(), " and ", values.dtype(), values.shape());
}

struct PermuteRule {
  static constexpr std::string_view name = "permute";
  std::vector<int> back;  // the order that undoes it

  void backward(BackwardContext& g) const { g.give(0, permuted(g.cotangent(), back)); }
};

struct ReverseRule {
  static constexpr std::string_view name = "reverse";
  std::vector<int> dims;

  void backward(BackwardContext& g) const { g.give(0, reversed(g.cotangent(), dims)); }
};

struct PadRule {
  static constexpr std::string_view name = "pad";
  Shape shape;
  std::vector<std::int64_t> before;

  void backward(BackwardContext& g) const {
    Tensor inside = g.cotangent();
    for (int d = 0; d < shape.rank(); ++d) {
      const std::int64_t begin = before[static_cast<std::size_t>(d)];
      inside = inside.slice(d, begin, begin + shape[d]);
    }
    g.give(0, inside.contiguous());
  }
};

struct SplitRule {
  static constexpr std::string_view name = "split";
  Shape shape;
  int dim;
  std::vector<std::int64_t> begins;  // of each piece

  void backward(BackwardContext& g) const {
    Tensor gx(shape, g.cotangent(0).dtype());
    for (std::size_t i = 0; i < begins.size(); ++i) place(g.cotangent(static_cast<int>(i)), gx, dim, begins[i]);
    g.give(0, std::move(gx));
  }
};

struct GatherAlongRule {
  static constexpr std::string_view name = "gather_along";
  Shape shape;
  Saved positions;

  void backward(BackwardContext& g) const {
    Tensor gx = Tensor::zeros(shape, g.cotangent().dtype());
    add_elements(name, gx, positions.get(), g.cotangent());
    g.give(0, std::move(gx));
  }
};

struct ScatterAddRule {
  static constexpr std::string_view name = "scatter_add";
  Saved positions;

  void backward(BackwardContext& g) const {
    const Tensor& gy = g.cotangent();
    if (g.needs(2)) {
      const Tensor& at = positions.get();
      g.give(2, gathered(gy.reshape(single_elements(gy.shape())), at, at.shape()));
    }
    if (g.needs(0)) g.give(0, gy);
  }
};

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

Var permute(const Var& x, std::span<const std::int64_t> dims) {
  const std::vector<int> order = checked_dims("permute", x.shape(), dims);
  check<ShapeError>(static_cast<int>(order.size()) == x.rank(), "permute", "needs each of the ", x.rank(),
                    " dimensions of shape ", x.shape(), " once; got ", order.size());
  std::vector<int> back(order.size());
  for (std::size_t d = 0; d < order.size(); ++d) back[static_cast<std::size_t>(order[d])] = static_cast<int>(d);
  return record(PermuteRule{std::move(back)}, {&x}, permuted(x.value(), order));
}

Var permute(const Var& x, std::initializer_list<std::int64_t> dims) {
  return permute(x, std::span(dims.begin(), dims.size()));
}

Var reverse(const Var& x, std::span<const std::int64_t> dims) {
  check_given("reverse", x);
  std::vector<int> axes = checked_dims("reverse", x.shape(), dims);
  Tensor y = reversed(x.value(), axes);
  return record(ReverseRule{std::move(axes)}, {&x}, std::move(y));
}

Var reverse(const Var& x, std::initializer_list<std::int64_t> dims) {
  return reverse(x, std::span(dims.begin(), dims.size()));
}

Var pad(const Var& x, const PadOptions& options) {
  check_given("pad", x);
  const auto fits = [&](const std::vector<std::int64_t>& sizes) {
    return static_cast<int>(sizes.size()) == x.rank() &&
           std::all_of(sizes.begin(), sizes.end(), [](std::int64_t size) { return size >= 0; });
  };
  check<ShapeError>(fits(options.before) && fits(options.after), "pad",
                    "needs a size of at least 0 before and after each dimension of x ", x.shape());
  Tensor y = x.value().contiguous();
  for (int d = 0; d < x.rank(); ++d) {
    const auto at = static_cast<std::size_t>(d);
    if (options.before[at] == 0 && options.after[at] == 0) continue;
    const std::int64_t room = std::numeric_limits<std::int64_t>::max() - y.dim(d);
    check<ShapeError>(options.before[at] <= room && options.after[at] <= room - options.before[at], "pad",
                      "needs a size below 2^63 of dimension ", d, " of x ", x.shape(), "; got ", options.before[at],
                      " before and ", options.after[at], " after it");
    Shape shape = y.shape();
    shape.set(d, options.before[at] + y.dim(d) + options.after[at]);
    Tensor wider = Tensor::full(Shape(shape.sizes()), options.value, y.dtype());
    place(y, wider, d, options.before[at]);
    y = std::move(wider);
  }
  return record(PadRule{x.shape(), options.before}, {&x}, std::move(y));
}

Var stack(std::span<const Var> inputs, int dim) {
  check<ShapeError>(!inputs.empty() && inputs[0].rank() < kMaxRank, "stack", "needs at least one input, of fewer than ",
                    kMaxRank, " dimensions");
  Shape shape = inputs[0].shape().with_appended(1);
  const int axis = checked_dim("stack", shape, dim);
  for (int d = shape.rank() - 1; d > axis; --d) shape.set(d, shape[d - 1]);
  shape.set(axis, 1);
  std::vector<Var> slices;
  for (const Var& input : inputs) {
    check<ShapeError>(input.shape() == inputs[0].shape(), "stack", "needs inputs of one shape; got ", inputs[0].shape(),
                      " and ", input.shape());
    slices.push_back(reshape(input, shape));
  }
  return concat(slices, axis);
}

Var stack(std::initializer_list<Var> inputs, int dim) { return stack(std::span(inputs.begin(), inputs.size()), dim); }

std::vector<Var> split(const Var& x, std::span<const std::int64_t> sizes, int dim) {
  const int axis = checked_dim("split", x.shape(), dim);
  check<ShapeError>(!sizes.empty(), "split", "needs at least one size; got none");
  std::vector<std::int64_t> begins;
  std::vector<Tensor> pieces;
  std::int64_t begin = 0;
  for (const std::int64_t size : sizes) {
    check<ShapeError>(size >= 0 && size <= x.dim(axis) - begin, "split", "needs sizes of at least 0 that add up to ",
                      x.dim(axis), " for shape ", x.shape(), "; got ", size, " from ", begin, " on");
    begins.push_back(begin);
    pieces.push_back(x.value().slice(axis, begin, begin + size).contiguous());
    begin += size;
  }
  check<ShapeError>(begin == x.dim(axis), "split", "needs sizes that add up to ", x.dim(axis), " for shape ", x.shape(),
                    "; got ", begin);
  const Var* const input = &x;
  return record(SplitRule{x.shape(), axis, std::move(begins)}, std::span(&input, 1), std::move(pieces));
}

std::vector<Var> split(const Var& x, std::initializer_list<std::int64_t> sizes, int dim) {
  return split(x, std::span(sizes.begin(), sizes.size()), dim);
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
  check_floating_pair("index_add", x, values);
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

Var gather_along(const Var& x, int dim, const Tensor& indices) {
  const int axis = checked_dim("gather_along", x.shape(), dim);
  Tensor positions = positions_along("gather_along", x.shape(), axis, indices);
  Tensor y = gathered(x.value().reshape(single_elements(x.shape())), positions, positions.shape());
  return record(GatherAlongRule{x.shape(), Saved(std::move(positions), x.tracked())}, {&x}, std::move(y));
}

Var scatter_add(const Var& x, int dim, const Tensor& indices, const Var& values) {
  check_floating_pair("scatter_add", x, values);
  const int axis = checked_dim("scatter_add", x.shape(), dim);
  Tensor positions = positions_along("scatter_add", x.shape(), axis, indices);
  check<ShapeError>(values.shape() == indices.shape(), "scatter_add", "needs values of the shape of indices ",
                    indices.shape(), "; got ", values.shape());
  Tensor y = x.value().clone();
  add_elements("scatter_add", y, positions, values.value().contiguous());
  const Var constant_indices(indices);
  return record(ScatterAddRule{Saved(std::move(positions), values.tracked())}, {&x, &constant_indices, &values},
                std::move(y));
}

Tensor one_hot(const Tensor& indices, std::int64_t classes, DType dtype) {
  check<ValueError>(classes >= 0, "one_hot", "needs a number of classes; got ", classes);
  const Tensor whole = checked_indices("one_hot", indices, classes);
  check<ShapeError>(indices.rank() < kMaxRank, "one_hot", "needs indices of fewer than ", kMaxRank, " dimensions; got ",
                    indices.shape());
  Tensor y = Tensor::zeros(indices.shape().with_appended(classes), dtype);
  dispatch_all(dtype, [&]<class T>(T) {
    kernels::mark_places(whole.data<std::int64_t>(), whole.numel(), classes, y.mutable_data<T>());
  });
  return y;
}

}  // namespace tally::ops
