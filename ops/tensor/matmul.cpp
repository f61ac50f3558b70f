#include "tally/ops/tensor/matmul.h"

#include "tally/autograd/tape.h"
#include "tally/core/blas.h"
#include "tally/core/parallel.h"
#include "tally/ops/elementwise/broadcast.h"
#include "tally/ops/entries.h"
#include "tally/ops/tensor/shape.h"

namespace tally::ops {
namespace {

using blas::Transpose;

Transpose flag(bool transposed) { return transposed ? Transpose::yes : Transpose::no; }

/// Matrices [., .], or a stack [count, ., .] of them.
struct Matrices {
  Tensor values;
  Tensor which;  // of the stack in each product, i64; undefined: each in its own order

  std::int64_t count() const { return which.defined() ? which.numel() : values.dim(0); }
  const std::int64_t* order() const { return which.defined() ? which.data<std::int64_t>() : nullptr; }
};

/// op(a) op(b) for two matrices, or for two stacks of them.
Tensor multiply(bool ta, bool tb, const Matrices& left, const Matrices& right) {
  const Tensor &a = left.values, &b = right.values;
  const std::int64_t m = a.dim(ta ? -1 : -2), k = a.dim(ta ? -2 : -1), n = b.dim(tb ? -2 : -1);
  const bool single = a.rank() == 2;
  const std::int64_t count = single ? 1 : left.count();
  Tensor c(single ? Shape{m, n} : Shape{count, m, n}, a.dtype());
  const std::int64_t *first = left.order(), *second = right.order();
  dispatch_floating(a.dtype(), "matmul", [&]<class T>(T) {
    const T *pa = a.data<T>(), *pb = b.data<T>();
    T* pc = c.mutable_data<T>();
    if (single) {
      blas::parallel_gemm(flag(ta), flag(tb), m, n, k, T{1}, pa, a.dim(-1), pb, b.dim(-1), T{0}, pc, n);
      return;
    }
    parallel_for(count, 1, [&](std::int64_t i, std::int64_t) {
      const T* at = pa + (first == nullptr ? i : first[i]) * m * k;
      const T* bt = pb + (second == nullptr ? i : second[i]) * k * n;
      blas::gemm(flag(ta), flag(tb), m, n, k, T{1}, at, a.dim(-1), bt, b.dim(-1), T{0}, pc + i * m * n, n);
    });
  });
  return c;
}

/// The dimensions before the last two, or those two.
Shape batch_of(const Shape& shape) { return Shape(shape.sizes().first(static_cast<std::size_t>(shape.rank() - 2))); }
Shape with_matrix(const Shape& batch, std::int64_t rows, std::int64_t columns) {
  return batch.with_appended(rows).with_appended(columns);
}

/// A tensor as a stack of matrices, of which the broadcast batch takes one after the other.
Matrices stacked(const Tensor& x, const Shape& batch) {
  const Shape own = batch_of(x.shape());
  Matrices matrices{x.reshape({own.numel(), x.dim(-2), x.dim(-1)}), {}};
  if (own != batch) matrices.which = Tensor::arange(own.numel()).reshape(own).expand(batch).contiguous();
  return matrices;
}

struct MatmulRule {
  static constexpr std::string_view name = "matmul";
  bool ta, tb;
  Shape a_shape, b_shape, batch, product;  // product: [m, n] or [count, m, n]
  Saved a, b;
  Tensor which_a, which_b;

  void backward(BackwardContext& g) const {
    const Matrices gy{g.cotangent().reshape(product), {}};
    if (g.needs(0)) {
      const Matrices other{b.get(), which_b};
      g.give(0, summed(ta ? multiply(tb, true, other, gy) : multiply(false, !tb, gy, other), a_shape));
    }
    if (g.needs(1)) {
      const Matrices other{a.get(), which_a};
      g.give(1, summed(tb ? multiply(true, ta, gy, other) : multiply(!ta, false, other, gy), b_shape));
    }
  }

 private:
  /// The gradient of an operand, from those of all products that it was in.
  Tensor summed(const Tensor& gradients, const Shape& shape) const {
    if (gradients.rank() == 2 || batch == batch_of(shape)) return gradients.reshape(shape);
    return sum_to(gradients.reshape(with_matrix(batch, shape[-2], shape[-1])), shape);
  }
};

/// The product with vectors as a row and a column.
Var product_of_vectors(const Var& a, const Var& b, const MatmulOptions& options) {
  const bool row = a.rank() == 1, column = b.rank() == 1;
  check<ShapeError>(!(row && options.transpose_a) && !(column && options.transpose_b), "matmul",
                    "does not transpose vectors; got a ", a.shape(), " and b ", b.shape());
  const Var y = matmul(row ? reshape(a, {1, a.dim(0)}) : a, column ? reshape(b, {b.dim(0), 1}) : b, options);
  Shape shape = y.shape();
  if (row) shape = shape.without(-2);
  if (column) shape = shape.without(-1);
  return reshape(y, shape);
}

}  // namespace

Var matmul(const Var& a, const Var& b, const MatmulOptions& options) {
  const Shape &sa = a.shape(), &sb = b.shape();
  const bool ta = options.transpose_a, tb = options.transpose_b;
  check<DTypeError>(a.dtype() == b.dtype() && is_floating(a.dtype()), "matmul", "needs equal floating types; got ",
                    a.dtype(), " and ", b.dtype());
  check<ShapeError>(sa.rank() >= 1 && sb.rank() >= 1, "matmul", "needs vectors or matrices; got a ", sa, " and b ", sb);
  if (sa.rank() == 1 || sb.rank() == 1) return product_of_vectors(a, b, options);
  check<ShapeError>(sa[ta ? -2 : -1] == sb[tb ? -1 : -2], "matmul", "needs equal inner sizes; got a ", sa,
                    (ta ? " transposed" : ""), " and b ", sb, (tb ? " transposed" : ""));
  const Shape own_a = batch_of(sa), own_b = batch_of(sb), batch = broadcast_shape("matmul", {&own_a, &own_b});
  const std::int64_t m = sa[ta ? -1 : -2], n = sb[tb ? -2 : -1];
  // A matrix b for a stack of a is one product over all rows of the stack, unless the rows of a are its columns.
  Matrices left, right;
  if (sb.rank() == 2 && (sa.rank() == 2 || !ta)) {
    left.values = a.value().reshape({own_a.numel() * sa[-2], sa[-1]});
    right.values = b.value().contiguous();
  } else {
    left = stacked(a.value(), batch);
    right = stacked(b.value(), batch);
  }
  const Tensor c = multiply(ta, tb, left, right);
  MatmulRule rule{ta,
                  tb,
                  sa,
                  sb,
                  batch,
                  c.shape(),
                  Saved(left.values, b.tracked()),
                  Saved(right.values, a.tracked()),
                  left.which,
                  right.which};
  return record(std::move(rule), {&a, &b}, c.reshape(with_matrix(batch, m, n)));
}

void entries::add_matmul(Catalog& catalog) {
  catalog.add({
      .name = "matmul",
      .summary = "Matrix product over the last two dimensions, with optional transposes; batches broadcast.",
      .inputs = {{"a", "[..., m, k] or [k]"}, {"b", "[..., k, n] or [k]"}},
      .options = {{"transpose_a", false, "a is stored [..., k, m]"}, {"transpose_b", false, "b is stored [..., n, k]"}},
      .outputs = {{"product", "[..., m, n]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {matmul(in[0], in[1], {options.flag("transpose_a", false), options.flag("transpose_b", false)})};
      },
      .samples =
          [] {
            std::vector<OpSample> samples;
            for (const bool ta : {false, true}) {
              for (const bool tb : {false, true}) {
                const auto pair = [&](Shape batch, std::int64_t m, std::int64_t k,
                                      std::int64_t n) -> std::vector<Tensor> {
                  const Shape a = batch.with_appended(ta ? k : m).with_appended(ta ? m : k);
                  const Shape b = batch.with_appended(tb ? n : k).with_appended(tb ? k : n);
                  return {sample_normal(a, 1), sample_normal(b, 2)};
                };
                const OpOptions options{{"transpose_a", ta}, {"transpose_b", tb}};
                samples.push_back({"odd", pair({}, 3, 5, 2), options});
                samples.push_back({"one", pair({}, 1, 1, 1), options});
                samples.push_back({"wide", pair({}, 5, 67, 33), options});
                samples.push_back({"wide result", pair({}, 66, 3, 65), options});
                samples.push_back({"batch", pair({2, 3}, 4, 3, 5), options});
                samples.push_back({"no inner size", pair({}, 2, 0, 3), options});
                samples.push_back({"no rows", pair({}, 0, 2, 3), options});
                samples.push_back({"empty batch", pair({0}, 2, 2, 2), options});
              }
            }
            samples.push_back({"shared b", {sample_normal({2, 3, 4}, 3), sample_normal({4, 5}, 4)}});
            for (const bool ta : {false, true}) {
              const OpOptions options{{"transpose_a", ta}};
              const std::int64_t rows = ta ? 4 : 3, columns = ta ? 3 : 4;
              const auto meet = [&](std::string name, const Shape& a, const Shape& b) {
                samples.push_back({std::move(name),
                                   {sample_normal(a.with_appended(rows).with_appended(columns), 7),
                                    sample_normal(b.with_appended(4).with_appended(5), 8)},
                                   options});
              };
              meet("a matrix for many", {2, 3}, {});
              meet("a shared by many", {}, {3});
              meet("batches broadcast", {2, 1}, {3});
              meet("both broadcast", {1, 2, 1}, {3, 1, 2});
              meet("empty by broadcasting", {0, 1}, {2});
              samples.push_back({"vector b", {sample_normal({rows, columns}, 1), sample_normal({4}, 2)}, options});
            }
            samples.push_back({"vector a", {sample_normal({3}, 1), sample_normal({2, 3, 5}, 2)}});
            samples.push_back(
                {"vector a, b transposed", {sample_normal({3}, 1), sample_normal({5, 3}, 2)}, {{"transpose_b", true}}});
            samples.push_back({"vectors", {sample_normal({7}, 1), sample_normal({7}, 2)}});
            samples.push_back({"many rows", {sample_normal({600, 3}, 5), sample_normal({3, 2}, 6)}});
            return samples;
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"inner sizes", {sample_normal({2, 3}, 1), sample_normal({4, 2}, 2)}, {}, "equal inner sizes"},
                {"scalar", {sample_normal({}, 1), sample_normal({3, 2}, 2)}, {}, "needs vectors or matrices"},
                {"batch",
                 {sample_normal({2, 3, 4}, 1), sample_normal({3, 4, 2}, 2)},
                 {},
                 "equal or 1; got [2] and [3]"},
                {"vector",
                 {sample_normal({3}, 1), sample_normal({3, 2}, 2)},
                 {{"transpose_a", true}},
                 "does not transpose vectors"},
            };
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({2048, 256}, 1), sample_normal({256, 256}, 2)}};
          },
      .flops =
          [](const OpSample& sample) {
            const Tensor &a = sample.inputs[0], &b = sample.inputs[1];
            const std::int64_t columns = b.dim(sample.options.flag("transpose_b", false) ? -2 : -1);
            return 2.0 * static_cast<double>(a.numel()) * static_cast<double>(columns);
          },
  });
}

}  // namespace tally::ops
