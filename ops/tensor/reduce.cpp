#include "tally/ops/tensor/reduce.h"

#include <limits>
#include <string>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/elementwise/broadcast.h"
#include "tally/ops/elementwise/sum_dims.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/elementwise.h"
#include "tally/ops/kernels/reduce.h"
#include "tally/ops/tensor/dimension.h"
#include "tally/ops/tensor/shape.h"

namespace tally::ops {
namespace {

DimSet dims_of(std::string_view op, const Shape& shape, const ReduceOptions& options) {
  DimSet dims;
  if (options.dims.empty()) {
    for (int d = 0; d < shape.rank(); ++d) dims.set(static_cast<std::size_t>(d));
  }
  for (const std::int64_t dim : options.dims) {
    const std::int64_t axis = dim < 0 ? dim + shape.rank() : dim;
    check<ShapeError>(axis >= 0 && axis < shape.rank(), op, "needs dimensions in [", -shape.rank(), ", ", shape.rank(),
                      ") for shape ", shape, "; got ", dim);
    check<ShapeError>(!dims[static_cast<std::size_t>(axis)], op, "needs each dimension once; got ", dim,
                      " twice for shape ", shape);
    dims.set(static_cast<std::size_t>(axis));
  }
  return dims;
}

void check_floating(std::string_view op, const Var& x) {
  check<DTypeError>(is_floating(x.dtype()), op, "needs f32 or f64; got ", x.dtype(), x.shape());
}

/// Number of elements that go into one. Throws ShapeError when a result would be made of none.
std::int64_t count_of(std::string_view op, const Shape& shape, DimSet dims) {
  const ReductionWalk walk(shape, dims);
  check<ShapeError>(walk.rows() > 0 || walk.outputs() == 0, op, "needs at least one element to reduce; got shape ",
                    shape);
  return walk.rows();
}

/// Each element of `gradient` (a reduced shape with kept dimensions of size 1) times `factor`, repeated to `shape`.
Tensor repeated(const Tensor& gradient, const Shape& kept, const Shape& shape, double factor) {
  return broadcast_binary(kernels::BinaryOp::multiply, gradient.reshape(kept), Tensor::scalar(factor, gradient.dtype()),
                          shape);
}

struct SumRule {
  static constexpr std::string_view name = "sum";
  Shape shape, kept;

  void backward(BackwardContext& g) const { g.give(0, repeated(g.cotangent(), kept, shape, 1)); }
};

struct MeanRule {
  static constexpr std::string_view name = "mean";
  Shape shape, kept;
  std::int64_t count;

  void backward(BackwardContext& g) const {
    g.give(0, repeated(g.cotangent(), kept, shape, 1 / static_cast<double>(count)));
  }
};

/// The cotangent of each result goes to the element that `where` names.
Tensor scatter(const Tensor& gy, const Tensor& where, const Shape& shape) {
  Tensor gx = Tensor::zeros(shape, gy.dtype());
  dispatch_floating(gy.dtype(), "scatter", [&]<class T>(T) {
    kernels::scatter_add(gx.mutable_data<T>(), where.data<std::int64_t>(), gy.data<T>(), gy.numel());
  });
  return gx;
}

template <bool kLargest>
struct ExtremeRule {
  static constexpr std::string_view name = kLargest ? "max" : "min";
  Shape shape;
  Saved where;

  void backward(BackwardContext& g) const { g.give(0, scatter(g.cotangent(), where.get(), shape)); }
};

/// The largest or smallest elements over some dimensions, and their positions in x.
struct Extremes {
  Tensor values, where;
};

Extremes extremes(std::string_view op, bool largest, const Var& x, DimSet dims, bool keepdims) {
  check_floating(op, x);
  count_of(op, x.shape(), dims);
  const Tensor source = x.value().contiguous();
  Extremes found;
  found.values = Tensor(reduced_shape(x.shape(), dims, keepdims), x.dtype());
  found.where = Tensor(found.values.shape(), DType::i64);
  const ReductionWalk walk(x.shape(), dims);
  const std::int64_t n = walk.n(), work = std::max<std::int64_t>(1, walk.rows() * n);
  dispatch_floating(x.dtype(), op, [&]<class T>(T) {
    const T* in = source.data<T>();
    T* best = found.values.mutable_data<T>();
    std::int64_t* at = found.where.mutable_data<std::int64_t>();
    std::fill(at, at + found.where.numel(), -1);
    parallel_for(
        walk.outputs(), std::max<std::int64_t>(1, kElementGrain / work), [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t output = begin; output < end; ++output) {
            walk.runs(walk.start(output), 0, walk.rows(), [&](std::int64_t offset, std::int64_t count) {
              kernels::update_extremes(largest, best + output * n, at + output * n, in + offset, offset, count, n, n);
            });
          }
        });
  });
  return found;
}

template <bool kLargest>
Var extreme(const Var& x, const ReduceOptions& options) {
  using Rule = ExtremeRule<kLargest>;
  Extremes found = extremes(Rule::name, kLargest, x, dims_of(Rule::name, x.shape(), options), options.keepdims);
  Rule rule{x.shape(), Saved(std::move(found.where), x.tracked())};
  return record(std::move(rule), {&x}, std::move(found.values));
}

/// A tensor as `outer` blocks of n rows of `inner` elements, around a dimension.
struct AroundDim {
  std::int64_t outer = 1, n = 1, inner = 1;
  AroundDim(const Shape& shape, int dim) : n(shape[dim]) {
    for (int d = 0; d < shape.rank(); ++d) (d < dim ? outer : inner) *= d == dim ? 1 : shape[d];
  }
};

Tensor place_of_extreme(std::string_view op, bool largest, const Var& x, const ArgOptions& options) {
  const DimSet dims = dims_of(op, x.shape(), {.dims = {options.dim}});
  Tensor where = extremes(op, largest, x, dims, options.keepdims).where;
  const AroundDim around(x.shape(), x.shape().normalize(options.dim));
  kernels::rows_of_positions(where.mutable_data<std::int64_t>(), where.numel(), around.n, around.inner);
  return where;
}

Tensor running_sum(const Tensor& x, int dim, bool reverse) {
  const Tensor source = x.contiguous();
  Tensor result(x.shape(), x.dtype());
  const AroundDim around(x.shape(), dim);
  const std::int64_t tile = 1024, tiles = block_count(around.inner, tile);
  const std::int64_t work = std::max<std::int64_t>(1, around.n * std::min(tile, around.inner));
  dispatch_floating(x.dtype(), "cumulative_sum", [&]<class T>(T) {
    const T* in = source.data<T>();
    T* out = result.mutable_data<T>();
    parallel_for(around.outer * tiles, std::max<std::int64_t>(1, kElementGrain / work),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t task = begin; task < end; ++task) {
                     const std::int64_t column = task % tiles * tile;
                     const std::int64_t at = task / tiles * around.n * around.inner + column;
                     kernels::cumulative_sum(in + at, out + at, around.n, std::min(tile, around.inner - column),
                                             around.inner, reverse);
                   }
                 });
  });
  return result;
}

struct CumulativeSumRule {
  static constexpr std::string_view name = "cumulative_sum";
  int dim;

  void backward(BackwardContext& g) const { g.give(0, running_sum(g.cotangent(), dim, true)); }
};

/// Calls body(row) for the rows along the last dimension, in parallel blocks; `body(begin, end)`.
void for_rows(const Shape& shape, tally::detail::BlockBody body) {
  const std::int64_t n = std::max<std::int64_t>(1, shape[-1]);
  parallel_for(shape.without(-1).numel(), std::max<std::int64_t>(1, kElementGrain / n), std::move(body));
}

struct LogSumExpRule {
  static constexpr std::string_view name = "log_sum_exp";
  Saved x;

  void backward(BackwardContext& g) const {
    const Tensor& input = x.get();
    Tensor gradient(input.shape(), input.dtype());
    dispatch_floating(input.dtype(), name, [&]<class T>(T) {
      const T *gy = g.cotangent().data<T>(), *in = input.data<T>();
      T* gx = gradient.mutable_data<T>();
      const std::int64_t n = input.dim(-1);
      for_rows(input.shape(), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) kernels::log_sum_exp_backward(gy[i], in + i * n, gx + i * n, n);
      });
    });
    g.give(0, std::move(gradient));
  }
};

struct TopKRule {
  static constexpr std::string_view name = "top_k";
  Shape shape;
  Saved positions;  // in x as a whole

  void backward(BackwardContext& g) const { g.give(0, scatter(g.cotangent(), positions.get(), shape)); }
};

}  // namespace

Var sum(const Var& x, const ReduceOptions& options) {
  check_floating("sum", x);
  const DimSet dims = dims_of("sum", x.shape(), options);
  Tensor y = sum_dims(x.value(), dims).reshape(reduced_shape(x.shape(), dims, options.keepdims));
  return record(SumRule{x.shape(), reduced_shape(x.shape(), dims, true)}, {&x}, std::move(y));
}

Var mean(const Var& x, const ReduceOptions& options) {
  check_floating("mean", x);
  const DimSet dims = dims_of("mean", x.shape(), options);
  const std::int64_t count = count_of("mean", x.shape(), dims);
  Tensor total = sum_dims(x.value(), dims, 1 / static_cast<double>(count));
  Tensor y = total.reshape(reduced_shape(x.shape(), dims, options.keepdims));
  return record(MeanRule{x.shape(), reduced_shape(x.shape(), dims, true), count}, {&x}, std::move(y));
}

Tensor argmax(const Var& x, const ArgOptions& options) { return place_of_extreme("argmax", true, x, options); }
Tensor argmin(const Var& x, const ArgOptions& options) { return place_of_extreme("argmin", false, x, options); }

Var max(const Var& x, const ReduceOptions& options) { return extreme<true>(x, options); }
Var min(const Var& x, const ReduceOptions& options) { return extreme<false>(x, options); }

Var cumulative_sum(const Var& x, int dim) {
  check_floating("cumulative_sum", x);
  const int rank = x.rank();
  check<ShapeError>(dim >= -rank && dim < rank, "cumulative_sum", "needs a dimension in [", -rank, ", ", rank,
                    ") for shape ", x.shape(), "; got ", dim);
  const int axis = x.shape().normalize(dim);
  return record(CumulativeSumRule{axis}, {&x}, running_sum(x.value(), axis, false));
}

Var log_sum_exp(const Var& x) {
  check_floating("log_sum_exp", x);
  check<ShapeError>(x.rank() >= 1, "log_sum_exp", "needs at least one dimension; got shape ", x.shape());
  const Tensor source = x.value().contiguous();
  Tensor result(x.shape().without(-1), x.dtype());
  dispatch_floating(x.dtype(), "log_sum_exp", [&]<class T>(T) {
    const T* in = source.data<T>();
    T* out = result.mutable_data<T>();
    const std::int64_t n = x.dim(-1);
    for_rows(x.shape(), [&](std::int64_t begin, std::int64_t end) {
      std::vector<T> scratch(static_cast<std::size_t>(n));
      for (std::int64_t i = begin; i < end; ++i) out[i] = kernels::log_sum_exp(in + i * n, scratch.data(), n);
    });
  });
  return record(LogSumExpRule{Saved(source, x.tracked())}, {&x}, std::move(result));
}

Var log_sum_exp(const Var& x, const ReduceOptions& options) {
  check_floating("log_sum_exp", x);
  const DimSet dims = dims_of("log_sum_exp", x.shape(), options);
  std::vector<std::int64_t> order, reduced, sizes;
  std::int64_t count = 1;
  for (int d = 0; d < x.rank(); ++d) {
    if (dims[static_cast<std::size_t>(d)]) {
      reduced.push_back(d);
      count *= x.dim(d);
    } else {
      order.push_back(d);
      sizes.push_back(x.dim(d));
    }
  }
  order.insert(order.end(), reduced.begin(), reduced.end());
  sizes.push_back(count);
  const Var rows = reshape(permute(x, order), Shape(std::span<const std::int64_t>(sizes)));
  return reshape(log_sum_exp(rows), reduced_shape(x.shape(), dims, options.keepdims));
}

TopK top_k(const Var& x, std::int64_t k) {
  check_floating("top_k", x);
  check<ShapeError>(x.rank() >= 1, "top_k", "needs at least one dimension; got shape ", x.shape());
  const std::int64_t n = x.dim(-1);
  check<ValueError>(k >= 0 && k <= n, "top_k", "needs 0 <= k <= ", n, " for shape ", x.shape(), "; got ", k);
  const Tensor source = x.value().contiguous();
  Shape shape = x.shape();
  shape.set(-1, k);
  Tensor values(shape, x.dtype()), indices(shape, DType::i64);
  dispatch_floating(x.dtype(), "top_k", [&]<class T>(T) {
    const T* in = source.data<T>();
    T* best = values.mutable_data<T>();
    std::int64_t* where = indices.mutable_data<std::int64_t>();
    for_rows(x.shape(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) kernels::top_k(in + i * n, n, k, best + i * k, where + i * k);
    });
  });
  Tensor positions;
  if (recording(x)) {
    positions = indices.clone();
    kernels::add_row_starts(positions.mutable_data<std::int64_t>(), shape.without(-1).numel(), k, n);
  }
  return {record(TopKRule{x.shape(), Saved(std::move(positions))}, {&x}, std::move(values)), std::move(indices)};
}

TopK top_k(const Var& x, std::int64_t k, int dim) {
  if (dim == -1 || dim + 1 == x.rank()) return top_k(x, k);
  const int axis = detail::checked_dim("top_k", x.shape(), dim);
  const TopK best = top_k(transpose(x, axis, -1), k);
  return {transpose(best.values, axis, -1), transpose(best.indices, axis, -1).value()};
}

}  // namespace tally::ops
