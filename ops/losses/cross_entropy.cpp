#include "tally/ops/losses/cross_entropy.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/cross_entropy.h"
#include "tally/ops/losses/loss_tokens.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "cross_entropy";

/// body(i, row) for the rows that count, in parallel; `body` takes a block of them.
template <class Body>
void for_counted(const LossTokens& counted, std::int64_t classes, Body&& body) {
  parallel_for(counted.count(), std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, classes)),
               std::forward<Body>(body));
}

struct CrossEntropyRule {
  static constexpr std::string_view name = kName;
  Saved logits;
  LossTokens counted;

  void backward(BackwardContext& g) const {
    const Tensor& x = logits.get();
    const std::int64_t classes = x.dim(1);
    const double share = g.cotangent().item() / static_cast<double>(counted.count());
    Tensor gx = Tensor::zeros(x.shape(), x.dtype());
    dispatch_floating(x.dtype(), name, [&]<class T>(T) {
      const T* rows = x.data<T>();
      T* to = gx.mutable_data<T>();
      for_counted(counted, classes, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
          const std::int64_t at = counted.tokens[i] * classes;
          kernels::cross_entropy_row_gradient(static_cast<T>(share), rows + at, classes, counted.targets[i], to + at);
        }
      });
    });
    g.give(0, std::move(gx));
  }
};

}  // namespace

Var cross_entropy(const Var& logits, const Tensor& targets) {
  check<DTypeError>(is_floating(logits.dtype()), kName, "needs logits of f32 or f64; got ", logits.dtype());
  check<ShapeError>(logits.rank() == 2, kName, "needs logits [T, C]; got ", logits.shape());
  const std::int64_t classes = logits.dim(1);
  LossTokens counted = LossTokens::select(kName, targets, {}, 1, logits.dim(0), classes);
  const Tensor rows = logits.value().contiguous();
  std::vector<double> losses(static_cast<std::size_t>(counted.count()));
  dispatch_floating(rows.dtype(), kName, [&]<class T>(T) {
    const T* x = rows.data<T>();
    for_counted(counted, classes, [&](std::int64_t begin, std::int64_t end) {
      std::vector<T> scratch(static_cast<std::size_t>(classes));
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        losses[i] =
            kernels::cross_entropy_row(x + counted.tokens[i] * classes, classes, counted.targets[i], scratch.data());
      }
    });
  });
  const double total = std::accumulate(losses.begin(), losses.end(), 0.0);
  const double mean = total / static_cast<double>(std::max<std::int64_t>(1, counted.count()));
  CrossEntropyRule rule{Saved(rows, logits.tracked()), std::move(counted)};
  return record(std::move(rule), {&logits}, Tensor::scalar(mean, logits.dtype()));
}

void entries::add_cross_entropy(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary = "Mean of -log softmax(logits)[target] over the rows whose target is not -1.",
      .inputs = {{"logits", "[T, C]"}, {"targets", "[T]", InputKind::integer, false, "in [0, C), or -1"}},
      .outputs = {{"loss", "[]"}},
      .call = [](std::span<const Var> in, const OpOptions&) -> std::vector<Var> {
        return {cross_entropy(in[0], in[1].value())};
      },
      .samples =
          [] {
            const auto sample = [](std::string name, std::int64_t rows, std::int64_t classes, double size = 1) {
              return OpSample{std::move(name),
                              {sample_normal({rows, classes}, 1, size), sample_integers({rows}, 2, classes)}};
            };
            const Tensor some =
                Tensor::from({std::int64_t{-1}, std::int64_t{2}, std::int64_t{-1}, std::int64_t{0}}, {4});
            const double lowest = -std::numeric_limits<double>::infinity();
            return std::vector<OpSample>{sample("odd", 7, 5),
                                         sample("wide", 3, 67, 3),
                                         sample("many", 130, 2),
                                         sample("one", 1, 1),
                                         sample("no rows", 0, 3),
                                         {"some ignored, i32", {sample_normal({4, 3}, 3), some.to(DType::i32)}},
                                         {"all ignored", {sample_normal({2, 3}, 4), Tensor::full({2}, -1, DType::i64)}},
                                         {"masked classes",
                                          {Tensor::from({1.0, lowest, 2.0, lowest, lowest, -3.0}, {2, 3}),
                                           Tensor::from({std::int64_t{0}, std::int64_t{2}}, {2})},
                                          {},
                                          false},
                                         {"extreme",
                                          {Tensor::from({1e4, -1e4, 9999.0, -1e30, 1e30, 0.0}, {2, 3}),
                                           Tensor::from({std::int64_t{2}, std::int64_t{1}}, {2})},
                                          {},
                                          false}};
          },
      .errors =
          [] {
            const Tensor logits = sample_normal({2, 3}, 1), targets = sample_integers({2}, 2, 3);
            return std::vector<OpError>{
                {"target", {logits, Tensor::full({2}, 3, DType::i64)}, {}, "needs targets in [0, 3) or -1"},
                {"below", {logits, Tensor::full({2}, -2, DType::i64)}, {}, "got -2 at position 0"},
                {"count", {logits, sample_integers({3}, 2, 3)}, {}, "needs one target for each of 2 tokens"},
                {"rank", {sample_normal({3}, 1), targets}, {}, "needs logits [T, C]"},
                {"types", {logits, sample_normal({2}, 1)}, {}, "needs targets of i32 or i64"},
                {"integers", {sample_integers({2, 3}, 1, 3), targets}, {}, "needs logits of f32 or f64"}};
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({1024, 512}, 1), sample_integers({1024}, 2, 512)}};
          },
  });
}

}  // namespace tally::ops
