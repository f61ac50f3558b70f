#include "tally/ops/tensor/matmul.h"

#include "tally/autograd/tape.h"
#include "tally/core/blas.h"
#include "tally/core/parallel.h"
#include "tally/ops/entries.h"

namespace tally::ops {
namespace {

using blas::Transpose;

Transpose flag(bool transposed) { return transposed ? Transpose::yes : Transpose::no; }

/// op(a) op(b) for two matrices, or for two stacks [batch, ., .] of them.
Tensor multiply(bool ta, bool tb, const Tensor& a, const Tensor& b) {
  const std::int64_t m = a.dim(ta ? -1 : -2), k = a.dim(ta ? -2 : -1), n = b.dim(tb ? -2 : -1);
  Shape shape = a.shape();
  shape.set(-2, m);
  shape.set(-1, n);
  Tensor c(shape, a.dtype());
  dispatch_floating(a.dtype(), "matmul", [&]<class T>(T) {
    const T *pa = a.data<T>(), *pb = b.data<T>();
    T* pc = c.mutable_data<T>();
    if (a.rank() == 2) {
      blas::parallel_gemm(flag(ta), flag(tb), m, n, k, T{1}, pa, a.dim(-1), pb, b.dim(-1), T{0}, pc, n);
      return;
    }
    parallel_for(a.dim(0), 1, [&](std::int64_t i, std::int64_t) {
      blas::gemm(flag(ta), flag(tb), m, n, k, T{1}, pa + i * m * k, a.dim(-1), pb + i * k * n, b.dim(-1), T{0},
                 pc + i * m * n, n);
    });
  });
  return c;
}

/// The matrix or stack of matrices that a tensor is for the kernel: batch dimensions folded into one.
Shape folded(const Shape& shape, bool as_rows) {
  if (shape.rank() == 2) return shape;
  std::int64_t batch = 1;
  for (int i = 0; i < shape.rank() - 2; ++i) batch *= shape[i];
  return as_rows ? Shape{batch * shape[-2], shape[-1]} : Shape{batch, shape[-2], shape[-1]};
}

struct MatmulRule {
  static constexpr std::string_view name = "matmul";
  bool ta, tb;
  Shape a_shape, b_shape, folded_output;
  Saved a, b;  // folded

  void backward(BackwardContext& g) const {
    const Tensor gy = g.cotangent().reshape(folded_output);
    if (g.needs(0))
      g.give(0, (ta ? multiply(tb, true, b.get(), gy) : multiply(false, !tb, gy, b.get())).reshape(a_shape));
    if (g.needs(1))
      g.give(1, (tb ? multiply(true, ta, gy, a.get()) : multiply(!ta, false, a.get(), gy)).reshape(b_shape));
  }
};

}  // namespace

Var matmul(const Var& a, const Var& b, const MatmulOptions& options) {
  const Shape &sa = a.shape(), &sb = b.shape();
  const bool ta = options.transpose_a, tb = options.transpose_b;
  check<DTypeError>(a.dtype() == b.dtype() && is_floating(a.dtype()), "matmul", "needs equal floating types; got ",
                    a.dtype(), " and ", b.dtype());
  check<ShapeError>(sa.rank() >= 2 && (sb.rank() == 2 || sb.rank() == sa.rank()), "matmul",
                    "needs a [..., m, k] and b [k, n] or b with a's batch dimensions; got a ", sa, " and b ", sb);
  bool fits = sa[ta ? -2 : -1] == sb[tb ? -1 : -2];
  for (int i = 0; i < sb.rank() - 2; ++i) fits = fits && sa[i] == sb[i];
  check<ShapeError>(fits, "matmul", "needs equal inner sizes and equal batch dimensions; got a ", sa,
                    (ta ? " transposed" : ""), " and b ", sb, (tb ? " transposed" : ""));
  // A matrix b for a stack of a is one product over all rows of the stack, unless the rows of a are its columns.
  const bool shared = sa.rank() > 2 && sb.rank() == 2;
  check<ShapeError>(!(shared && ta), "matmul", "cannot share b over a stack of transposed a; got a ", sa, " and b ",
                    sb);
  Shape output = sa;
  output.set(-2, sa[ta ? -1 : -2]);
  output.set(-1, sb[tb ? -2 : -1]);
  const Tensor fa = a.value().reshape(folded(sa, shared)), fb = b.value().reshape(folded(sb, false));
  Tensor c = multiply(ta, tb, fa, fb).reshape(output);
  MatmulRule rule{ta, tb, sa, sb, folded(output, shared), Saved(fa, b.tracked()), Saved(fb, a.tracked())};
  return record(std::move(rule), {&a, &b}, std::move(c));
}

void entries::add_matmul(Catalog& catalog) {
  catalog.add({
      .name = "matmul",
      .summary = "Matrix product over the last two dimensions, with optional transposes.",
      .inputs = {{"a", "[..., m, k]"}, {"b", "[k, n] or [..., k, n]"}},
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
            samples.push_back({"many rows", {sample_normal({600, 3}, 5), sample_normal({3, 2}, 6)}});
            return samples;
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"inner sizes", {sample_normal({2, 3}, 1), sample_normal({4, 2}, 2)}, {}, "equal inner sizes"},
                {"rank", {sample_normal({3}, 1), sample_normal({3, 2}, 2)}, {}, "[..., m, k]"},
                {"batch", {sample_normal({2, 3, 4}, 1), sample_normal({3, 4, 2}, 2)}, {}, "equal batch dimensions"},
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
