#include "tally/ops/quantization/commitment_loss.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/entries.h"

namespace tally::ops {
namespace {

constexpr const char* kName = "commitment_loss";
constexpr std::int64_t kRows = 256;  // of a block

/// Calls visit(row, factor, difference) with the row's weight times `scale` and x - target [D], which it may overwrite,
/// for rows [begin, end).
template <class T, class Visit>
void for_each_difference(const Tensor& x, const Tensor& target, const Tensor& weights, double scale, std::int64_t begin,
                         std::int64_t end, T* difference, Visit&& visit) {
  const std::int64_t width = x.dim(1);
  const T *px = x.data<T>(), *pt = target.data<T>();
  const T* factors = weights.defined() ? weights.data<T>() : nullptr;
  for (std::int64_t row = begin; row < end; ++row) {
    std::copy_n(px + row * width, width, difference);
    kernels::axpy(difference, T{-1}, pt + row * width, width);
    visit(row, scale * (factors == nullptr ? 1 : static_cast<double>(factors[row])), difference);
  }
}

struct CommitmentLossRule {
  static constexpr std::string_view name = kName;
  double scale;
  bool weighted;
  Saved x, target, weights;

  void backward(BackwardContext& g) const {
    const Tensor &from = x.get(), &to = target.get();
    const Tensor factors = weighted ? weights.get() : Tensor();
    const std::int64_t width = from.dim(1);
    const double outer = 2 * scale * g.cotangent().item();
    Tensor gradient(from.shape(), from.dtype());
    dispatch_floating(from.dtype(), kName, [&]<class T>(T) {
      T* out = gradient.mutable_data<T>();
      parallel_for(from.dim(0), kRows, [&](std::int64_t begin, std::int64_t end) {
        std::vector<T> difference(static_cast<std::size_t>(width));
        for_each_difference(from, to, factors, outer, begin, end, difference.data(),
                            [&](std::int64_t row, double factor, T* values) {
                              kernels::scale(values, static_cast<T>(factor), width);
                              std::copy_n(values, width, out + row * width);
                            });
      });
    });
    g.give(0, std::move(gradient));
  }
};

}  // namespace

Var commitment_loss(const Var& x, const Tensor& target, const CommitmentLossOptions& options) {
  check<DTypeError>(is_floating(x.dtype()) && target.dtype() == x.dtype(), kName,
                    "needs x and target of equal floating types; got ", x.dtype(), " and ", target.dtype());
  check<ShapeError>(x.rank() == 2 && target.shape() == x.shape(), kName, "needs x and target [T, D]; got ", x.shape(),
                    " and ", target.shape());
  if (options.weights.defined()) {
    check<ShapeError>(options.weights.shape() == Shape({x.dim(0)}), kName, "needs a weight for each of ", x.dim(0),
                      " rows; got ", options.weights.shape());
    check<DTypeError>(is_floating(options.weights.dtype()), kName, "needs floating weights; got ",
                      options.weights.dtype());
  }
  const Tensor from = x.value().contiguous(), to = target.contiguous();
  const Tensor weights = options.weights.defined() ? options.weights.to(x.dtype()).contiguous() : Tensor();
  double loss = 0;
  dispatch_floating(x.dtype(), kName, [&]<class T>(T) {
    loss = parallel_reduce(
        x.dim(0), kRows, 0.0,
        [&](std::int64_t begin, std::int64_t end) {
          std::vector<T> difference(static_cast<std::size_t>(x.dim(1)));
          double sum = 0;
          for_each_difference(from, to, weights, options.reduction_scale, begin, end, difference.data(),
                              [&](std::int64_t, double factor, const T* values) {
                                sum += factor * kernels::sum_squares(values, x.dim(1));
                              });
          return sum;
        },
        std::plus<>());
  });
  CommitmentLossRule rule{options.reduction_scale, weights.defined(), Saved(from), Saved(to), Saved(weights)};
  return record(std::move(rule), {&x}, Tensor::scalar(loss, x.dtype()));
}

void entries::add_commitment_loss(Catalog& catalog) {
  catalog.add({
      .name = kName,
      .summary = "Sum over rows of ||x - target||^2 for a target that is constant, as in VQ-VAE.",
      .inputs = {{"x", "[T, D]"},
                 {.name = "target",
                  .shape = "[T, D]",
                  .kind = InputKind::constant,
                  .no_gradient = "x is drawn to it, not it to x"},
                 {"weights", "[T]", InputKind::constant, true, "factor of each row", "given, not learned"}},
      .options = {{"reduction_scale", 1.0, "factor of the whole sum"}},
      .outputs = {{"loss", "[]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {commitment_loss(in[0], in[1].value(),
                                {.weights = in[2].value(), .reduction_scale = options.number("reduction_scale", 1)})};
      },
      .samples =
          [] {
            const auto call = [](std::int64_t rows, std::int64_t width, bool weighted) {
              return std::vector<Tensor>{sample_normal({rows, width}, 1), sample_normal({rows, width}, 2),
                                         weighted ? sample_normal({rows}, 3) : Tensor()};
            };
            return std::vector<OpSample>{{"odd", call(5, 3, false)},
                                         {"weights", call(4, 2, true), {{"reduction_scale", 0.25}}},
                                         {"one", call(1, 1, true)},
                                         {"empty", call(0, 3, true)},
                                         {"no width", call(3, 0, false)},
                                         {"two blocks", call(260, 3, true)},
                                         {"extreme",
                                          {Tensor::from<double>({1e15, -1e15, 1e-30, 0}, {2, 2}),
                                           Tensor::from<double>({-1e15, 1e15, 0, -1e-30}, {2, 2}), Tensor()},
                                          {},
                                          false}};
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"shape", {sample_normal({3, 2}, 1), sample_normal({2, 3}, 2), {}}, {}, "got [3, 2] and [2, 3]"},
                {"weights",
                 {sample_normal({3, 2}, 1), sample_normal({3, 2}, 2), sample_normal({2}, 3)},
                 {},
                 "needs a weight for each of 3 rows; got [2]"}};
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({8192, 128}, 1), sample_normal({8192, 128}, 2), {}}};
          },
      .variations =
          [] {
            return std::vector<OpVariations>{
                {{"rows", {sample_normal({4, 3}, 11), sample_normal({4, 3}, 12), sample_normal({4}, 13)}},
                 {{"reduction_scale", {0.25}}}},
                {{"wide rows", {sample_normal({2, 67}, 14), sample_normal({2, 67}, 15), sample_normal({2}, 16)}},
                 {{"reduction_scale", {0.25}}}}};
          },
  });
}

}  // namespace tally::ops
