#include "tally/ops/tensor/softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tally/autograd/tape.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/softmax_rows.h"
#include "tally/ops/tensor/dimension.h"
#include "tally/ops/tensor/shape.h"

namespace tally::ops {
namespace {

constexpr std::int64_t kBlockElements = 1 << 14;

/// Calls kernel(x row, other row, y row, columns) for every row of a new tensor like x.
template <class Kernel>
Tensor by_rows(std::string_view op, const Tensor& x, const Tensor& other, Kernel&& kernel) {
  Tensor y(x.shape(), x.dtype());
  const std::int64_t columns = x.dim(-1), rows = columns == 0 ? 0 : x.numel() / columns;
  dispatch_floating(x.dtype(), op, [&]<class T>(T) {
    const T *px = x.data<T>(), *po = other.data<T>();
    T* py = y.mutable_data<T>();
    parallel_for(rows, std::max<std::int64_t>(kBlockElements / std::max<std::int64_t>(columns, 1), 1),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t r = begin; r < end; ++r) {
                     kernel(px + r * columns, po + r * columns, py + r * columns, columns);
                   }
                 });
  });
  return y;
}

struct SoftmaxRule {
  static constexpr std::string_view name = "softmax";
  Saved y;

  void backward(BackwardContext& g) const {
    g.give(0, by_rows(name, y.get(), g.cotangent(), [](const auto* py, const auto* gy, auto* gx, std::int64_t n) {
             kernels::softmax_backward(py, gy, gx, n);
           }));
  }
};

struct LogSoftmaxRule {
  static constexpr std::string_view name = "log_softmax";
  Saved y;

  void backward(BackwardContext& g) const {
    g.give(0, by_rows(name, y.get(), g.cotangent(), [](const auto* py, const auto* gy, auto* gx, std::int64_t n) {
             kernels::log_softmax_backward(py, gy, gx, n);
           }));
  }
};

void check_input(std::string_view op, const Var& x) {
  check<DTypeError>(is_floating(x.dtype()), op, "needs f32 or f64; got ", x.dtype());
  check<ShapeError>(x.rank() >= 1, op, "needs x [..., D]; got ", x.shape());
}

std::vector<OpSample> softmax_samples() {
  const double lowest = -std::numeric_limits<double>::infinity();
  const Tensor masked = Tensor::from<double>({1, lowest, 2, lowest, lowest, lowest, lowest, -3, lowest}, {3, 3});
  const Tensor extreme = Tensor::from<double>({1e4, -1e4, 9999, -1e30, 1e30, 0, -1e-30, 1e-30, 0}, {3, 3});
  return {{"odd", {sample_normal({3, 5}, 1)}},
          {"vector", {sample_normal({7}, 2)}},
          {"one column", {sample_normal({3, 1}, 3)}},
          {"empty", {sample_normal({0, 4}, 4)}},
          {"no columns", {sample_normal({3, 0}, 5)}},
          {"long", {sample_normal({2, 3, 67}, 6, 2)}},
          {"ties", {Tensor::full({2, 9}, 0.25, DType::f64)}},
          {"columns", {sample_normal({5, 3}, 7)}, {{"dim", std::int64_t{0}}}},
          {"middle", {sample_normal({2, 5, 3}, 8)}, {{"dim", std::int64_t{-2}}}},
          {"the last by its number", {sample_normal({2, 5}, 9)}, {{"dim", std::int64_t{1}}}},
          {"empty columns", {sample_normal({0, 3}, 4)}, {{"dim", std::int64_t{0}}}},
          {"minus infinity", {masked}, {}, false},
          {"extreme", {extreme}, {}, false}};
}

/// A function of the last dimension, of dimension `dim`.
Var over(std::string_view op, const Var& x, int dim, Var (*function)(const Var&)) {
  if (dim == -1 || dim + 1 == x.rank()) return function(x);
  const int axis = detail::checked_dim(op, x.shape(), dim);
  return transpose(function(transpose(x, axis, -1)), axis, -1);
}

OpEntry entry(std::string name, std::string summary, Var (*function)(const Var&, int)) {
  OpEntry entry;
  entry.name = std::move(name);
  entry.summary = std::move(summary);
  entry.inputs = {{"x", "[...]"}};
  entry.options = {{"dim", std::int64_t{-1}, "dimension; negative ones count from the end"}};
  entry.outputs = {{"y", "[...]"}};
  entry.call = [function](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
    return {function(in[0], options.dimension("dim", -1))};
  };
  entry.samples = softmax_samples;
  entry.errors = [] {
    return std::vector<OpError>{
        {"scalar", {Tensor::scalar(1, DType::f64)}, {}, "needs x [..., D]"},
        {"dimension", {sample_normal({2, 3}, 1)}, {{"dim", std::int64_t{2}}}, "needs a dimension in [-2, 2)"},
        {"integers", {sample_integers({3}, 1, 5)}, {}, "needs f32 or f64"}};
  };
  entry.large = [] { return OpSample{"large", {sample_normal({2048, 512}, 1)}}; };
  return entry;
}

}  // namespace

Var softmax(const Var& x) {
  check_input("softmax", x);
  const Tensor from = x.value().contiguous();
  Tensor y = by_rows("softmax", from, from,
                     [](const auto* px, const auto*, auto* py, std::int64_t n) { kernels::softmax_row(px, py, n); });
  SoftmaxRule rule{Saved(y)};
  return record(std::move(rule), {&x}, std::move(y));
}

Var log_softmax(const Var& x) {
  check_input("log_softmax", x);
  const Tensor from = x.value().contiguous();
  Tensor y = by_rows("log_softmax", from, from, [](const auto* px, const auto*, auto* py, std::int64_t n) {
    kernels::log_softmax_row(px, py, n);
  });
  LogSoftmaxRule rule{Saved(y)};
  return record(std::move(rule), {&x}, std::move(y));
}

Var softmax(const Var& x, int dim) { return over("softmax", x, dim, softmax); }
Var log_softmax(const Var& x, int dim) { return over("log_softmax", x, dim, log_softmax); }

void entries::add_softmax(Catalog& catalog) {
  catalog.add(entry("softmax", "exp(x - max x) / sum exp(x - max x) over a dimension.", softmax));
  catalog.add(entry("log_softmax", "x - log sum exp(x) over a dimension.", log_softmax));
}

}  // namespace tally::ops
