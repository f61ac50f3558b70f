#include "tally/autograd/gradients.h"

#include <algorithm>
#include <atomic>

#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/core/stable_order.h"

namespace tally {
namespace {

constexpr std::int64_t kGrain = 1 << 15;

std::int64_t row_size(const Shape& shape) { return shape.without(0).numel(); }
/// Rows of a block.
std::int64_t row_grain(std::int64_t width) {
  return std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, width));
}

/// a += b for dense tensors; in place when nobody else sees a.
Tensor add_dense(Tensor a, const Tensor& b) {
  check<ShapeError>(a.shape() == b.shape(), "gradient", "needs equal shapes to add; got ", a.shape(), " and ",
                    b.shape());
  check<DTypeError>(a.dtype() == b.dtype(), "gradient", "needs equal types to add; got ", a.dtype(), " and ",
                    b.dtype());
  if (!a.unique() || !a.is_contiguous()) a = a.clone();
  const Tensor addend = b.contiguous();
  dispatch_floating(a.dtype(), "gradient", [&]<class T>(T) {
    T* to = a.mutable_data<T>();
    const T* from = addend.data<T>();
    parallel_for(a.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      kernels::add_into(to + begin, from + begin, end - begin);
    });
  });
  return a;
}

Tensor add_rows(Tensor dense, const RowGrad& rows) {
  check<ShapeError>(dense.shape() == rows.shape, "gradient", "needs equal shapes to add; got ", dense.shape(),
                    " and rows of ", rows.shape);
  check<DTypeError>(dense.dtype() == rows.values.dtype(), "gradient", "needs equal types to add; got ", dense.dtype(),
                    " and ", rows.values.dtype());
  if (!dense.unique() || !dense.is_contiguous()) dense = dense.clone();
  dispatch_floating(dense.dtype(), "gradient", [&]<class T>(T) {
    T* to = dense.mutable_data<T>();
    const T* from = rows.values.data<T>();
    const std::int64_t* index = rows.rows.data<std::int64_t>();
    const std::int64_t width = row_size(rows.shape);
    // No row stands there twice.
    parallel_for(rows.rows.numel(), row_grain(width), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t k = begin; k < end; ++k) kernels::add_into(to + index[k] * width, from + k * width, width);
    });
  });
  return dense;
}

RowGrad merge_rows(const RowGrad& a, const RowGrad& b) {
  check<ShapeError>(a.shape == b.shape, "gradient", "needs equal shapes to add; got rows of ", a.shape, " and of ",
                    b.shape);
  check<DTypeError>(a.values.dtype() == b.values.dtype(), "gradient", "needs equal types to add; got ",
                    a.values.dtype(), " and ", b.values.dtype());
  const auto ra = a.rows.span<std::int64_t>(), rb = b.rows.span<std::int64_t>();
  std::vector<std::int64_t> rows;
  rows.reserve(ra.size() + rb.size());
  std::set_union(ra.begin(), ra.end(), rb.begin(), rb.end(), std::back_inserter(rows));
  Shape shape = a.values.shape();
  shape.set(0, static_cast<std::int64_t>(rows.size()));
  RowGrad sum{Tensor::from(rows, {static_cast<std::int64_t>(rows.size())}), Tensor(shape, a.values.dtype()), a.shape};
  dispatch_floating(a.values.dtype(), "gradient", [&]<class T>(T) {
    const std::int64_t width = row_size(a.shape);
    const T *pa = a.values.data<T>(), *pb = b.values.data<T>();
    T* out = sum.values.mutable_data<T>();
    std::size_t ia = 0, ib = 0;
    for (const std::int64_t row : rows) {
      const bool in_a = ia < ra.size() && ra[ia] == row, in_b = ib < rb.size() && rb[ib] == row;
      std::copy_n(in_a ? pa : pb, width, out);
      if (in_a && in_b) kernels::add_into(out, pb, width);
      if (in_a) ++ia, pa += width;
      if (in_b) ++ib, pb += width;
      out += width;
    }
  });
  return sum;
}

}  // namespace

LeafId new_leaf_id() {
  static std::atomic<std::uint64_t> next{1};
  return {next++};
}

Var Var::leaf(Tensor value, LeafId id) {
  check<AutogradError>(value.defined() && id, "leaf", "needs a tensor and an identity");
  check<DTypeError>(is_floating(value.dtype()), "leaf", "needs f32 or f64; got ", value.dtype());
  Var var(std::move(value));
  var.leaf_ = id;
  return var;
}

RowGrad RowGrad::gather(const Tensor& rows, const Tensor& values, const Shape& shape) {
  const std::int64_t count = rows.numel();
  const std::int64_t width = row_size(shape);
  check<ShapeError>(values.numel() == count * width, "RowGrad", "needs a row of ", width, " values for each of ", count,
                    " rows; got values ", values.shape());
  const Tensor index = rows.to(DType::i64).contiguous();
  const auto row_at = index.span<std::int64_t>();
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t row = row_at[static_cast<std::size_t>(i)];
    check<IndexError>(row >= 0 && row < shape[0], "RowGrad", "row ", row, " at position ", i, " is outside [0, ",
                      shape[0], ")");
  }
  // Sorted by (row, position): equal rows are summed in order of position, whatever the number of threads.
  const std::vector<std::int64_t> order = stable_order(row_at, shape[0]);
  std::vector<std::int64_t> unique, first;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t row = row_at[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
    if (unique.empty() || unique.back() != row) {
      unique.push_back(row);
      first.push_back(i);
    }
  }
  first.push_back(count);
  const auto distinct = static_cast<std::int64_t>(unique.size());
  Shape value_shape = shape;
  value_shape.set(0, distinct);
  RowGrad result{Tensor::from(unique, {distinct}), Tensor(value_shape, values.dtype()), shape};
  const Tensor source = values.contiguous();
  dispatch_floating(values.dtype(), "RowGrad", [&]<class T>(T) {
    const T* in = source.data<T>();
    T* out = result.values.mutable_data<T>();
    parallel_for(distinct, row_grain(width), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t k = begin; k < end; ++k) {
        const auto from = static_cast<std::size_t>(first[static_cast<std::size_t>(k)]);
        const auto to = static_cast<std::size_t>(first[static_cast<std::size_t>(k + 1)]);
        std::copy_n(in + order[from] * width, width, out + k * width);
        for (std::size_t i = from + 1; i < to; ++i) kernels::add_into(out + k * width, in + order[i] * width, width);
      }
    });
  });
  return result;
}

Tensor RowGrad::to_dense() const { return add_rows(Tensor::zeros(shape, values.dtype()), *this); }

Gradient add(Gradient a, Gradient b) {
  if (auto* dense = std::get_if<Tensor>(&a)) {
    Tensor taken = std::move(*dense);
    *dense = Tensor();
    if (const auto* rows = std::get_if<RowGrad>(&b)) return add_rows(std::move(taken), *rows);
    return add_dense(std::move(taken), std::get<Tensor>(b));
  }
  const auto& rows = std::get<RowGrad>(a);
  if (const auto* other = std::get_if<RowGrad>(&b)) return merge_rows(rows, *other);
  return add_rows(std::move(std::get<Tensor>(b)), rows);
}

Tensor to_dense(const Gradient& gradient) {
  if (const auto* dense = std::get_if<Tensor>(&gradient)) return *dense;
  return std::get<RowGrad>(gradient).to_dense();
}

double sum_squares(const Gradient& gradient) {
  const auto* dense = std::get_if<Tensor>(&gradient);
  const Tensor values = (dense != nullptr ? *dense : std::get<RowGrad>(gradient).values).contiguous();
  return dispatch_floating(values.dtype(), "gradient", [&]<class T>(T) {
    const T* data = values.data<T>();
    return parallel_reduce(
        values.numel(), kGrain, 0.0,
        [&](std::int64_t begin, std::int64_t end) { return kernels::sum_squares(data + begin, end - begin); },
        [](double a, double b) { return a + b; });
  });
}

void scale(Gradient& gradient, double factor) {
  auto* dense = std::get_if<Tensor>(&gradient);
  Tensor& values = dense != nullptr ? *dense : std::get<RowGrad>(gradient).values;
  if (!values.unique() || !values.is_contiguous()) values = values.clone();
  dispatch_floating(values.dtype(), "gradient", [&]<class T>(T) {
    T* data = values.mutable_data<T>();
    parallel_for(values.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      kernels::scale(data + begin, static_cast<T>(factor), end - begin);
    });
  });
}

const Gradient* Gradients::find(LeafId leaf) const {
  const auto found = map_.find(leaf);
  return found == map_.end() ? nullptr : &found->second;
}

Tensor Gradients::operator[](LeafId leaf) const {
  const Gradient* gradient = find(leaf);
  check<AutogradError>(gradient != nullptr, "gradients",
                       "no gradient reached this leaf: it was not used, or not recorded");
  return to_dense(*gradient);
}

Tensor Gradients::operator[](const Var& leaf) const {
  check<AutogradError>(leaf.is_leaf(), "gradients", "needs a leaf (a parameter or a tape's input)");
  return (*this)[leaf.leaf_id()];
}

void Gradients::add(LeafId leaf, Gradient gradient) {
  const auto [place, inserted] = map_.try_emplace(leaf, Tensor());
  if (inserted) {
    place->second = std::move(gradient);
  } else {
    place->second = tally::add(std::move(place->second), std::move(gradient));
  }
}

Gradient Gradients::take(LeafId leaf) {
  const auto found = map_.find(leaf);
  check<AutogradError>(found != map_.end(), "gradients",
                       "no gradient reached this leaf: it was not used, or not recorded");
  Gradient gradient = std::move(found->second);
  map_.erase(found);
  return gradient;
}

void Gradients::make_dense(LeafId leaf) {
  const auto found = map_.find(leaf);
  if (found == map_.end()) return;
  if (const auto* rows = std::get_if<RowGrad>(&found->second)) found->second = rows->to_dense();
}

Gradients& Gradients::operator+=(Gradients other) {
  for (auto& [leaf, gradient] : other.map_) add(leaf, std::move(gradient));
  return *this;
}

void Gradients::scale(double factor) {
  for (auto& [leaf, gradient] : map_) tally::scale(gradient, factor);
}

}  // namespace tally
