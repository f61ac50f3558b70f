#include "tally/ops/losses/cross_entropy.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/cross_entropy.h"
#include "tally/ops/losses/loss_tokens.h"
#include "tally/ops/tensor/reduce.h"
#include "tally/ops/tensor/shape.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "cross_entropy";

/// The targets that a loss counts, with their weights, and what its sum is divided by.
struct CountedTargets {
  LossTokens counted;
  double divisor = 1;
};

/// Of scores [N, C, ...] with targets [N, ...].
CountedTargets counted_targets(std::string_view op, const Var& scores, const Tensor& targets,
                               const CrossEntropyOptions& options) {
  check<DTypeError>(is_floating(scores.dtype()), op, "needs scores of f32 or f64; got ", scores.dtype());
  check<ShapeError>(scores.rank() >= 2, op, "needs scores [T, C] or [N, C, ...]; got ", scores.shape());
  bool fits = targets.rank() == scores.rank() - 1;
  for (int d = 0; fits && d < targets.rank(); ++d) fits = targets.dim(d) == scores.dim(d == 0 ? 0 : d + 1);
  check<ShapeError>(fits, op, "needs a target for each row of scores ", scores.shape(), "; got targets ",
                    targets.shape());
  check<DTypeError>(targets.dtype() == DType::i32 || targets.dtype() == DType::i64, op,
                    "needs targets of i32 or i64; got ", targets.dtype());
  const std::int64_t classes = scores.dim(1), count = targets.numel();
  std::vector<double> by_class;
  if (const Tensor& weights = options.class_weights; weights.defined()) {
    check<ShapeError>(weights.rank() == 1 && weights.dim(0) == classes, op, "needs a weight for each of ", classes,
                      " classes; got ", weights.shape());
    check<DTypeError>(is_floating(weights.dtype()), op, "needs weights of f32 or f64; got ", weights.dtype());
    by_class = weights.to_doubles();
  }
  Tensor wide = targets.to(DType::i64).contiguous().clone(), weights({count}, DType::f64);
  std::int64_t* target = wide.mutable_data<std::int64_t>();
  double* weight = weights.mutable_data<double>();
  for (std::int64_t t = 0; t < count; ++t) {
    const bool ignored = target[t] == options.ignore_index;
    check<IndexError>(ignored || (target[t] >= 0 && target[t] < classes), op, "needs targets in [0, ", classes, ") or ",
                      options.ignore_index, " (ignored); got ", target[t], " at position ", t);
    if (ignored) target[t] = -1;
    weight[t] = ignored || by_class.empty() ? 1 : by_class[static_cast<std::size_t>(target[t])];
  }
  CountedTargets made{LossTokens::select(op, wide.reshape({count}), weights, 1, count, classes)};
  if (options.reduction == Reduction::mean && made.counted.count() > 0) {
    made.divisor = std::accumulate(made.counted.weights.begin(), made.counted.weights.end(), 0.0);
  }
  return made;
}

/// Scores [N, C, ...] as rows [T, C].
Var rows_of(const Var& scores) {
  if (scores.rank() == 2) return scores;
  std::vector<std::int64_t> order{0};
  for (int d = 2; d < scores.rank(); ++d) order.push_back(d);
  order.push_back(1);
  const std::int64_t classes = scores.dim(1);
  return reshape(permute(scores, order), {classes == 0 ? 0 : scores.value().numel() / classes, classes});
}

/// body(i, row) for the rows that count, in parallel; `body` takes a block of them.
template <class Body>
void for_counted(const LossTokens& counted, std::int64_t classes, Body&& body) {
  parallel_for(counted.count(), std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, classes)),
               std::forward<Body>(body));
}

struct CrossEntropyRule {
  static constexpr std::string_view name = kName;
  Saved logits;
  CountedTargets targets;

  void backward(BackwardContext& g) const {
    const Tensor& x = logits.get();
    const std::int64_t classes = x.dim(1);
    const LossTokens& counted = targets.counted;
    // Of one loss, or of each row's.
    const std::vector<double> gy = g.cotangent().to_doubles();
    const bool each = g.cotangent().rank() > 0;
    Tensor gx = Tensor::zeros(x.shape(), x.dtype());
    dispatch_floating(x.dtype(), name, [&]<class T>(T) {
      const T* rows = x.data<T>();
      T* to = gx.mutable_data<T>();
      for_counted(counted, classes, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
          const std::int64_t at = counted.tokens[i] * classes;
          const double share = gy[each ? static_cast<std::size_t>(counted.tokens[i]) : 0] * counted.weights[i];
          kernels::cross_entropy_row_gradient(static_cast<T>(share / targets.divisor), rows + at, classes,
                                              counted.targets[i], to + at);
        }
      });
    });
    g.give(0, std::move(gx));
  }
};

}  // namespace

Var cross_entropy(const Var& logits, const Tensor& targets, const CrossEntropyOptions& options) {
  CountedTargets chosen = counted_targets(kName, logits, targets, options);
  const Var x = rows_of(logits);
  const std::int64_t classes = logits.dim(1);
  const LossTokens& counted = chosen.counted;
  const Tensor rows = x.value().contiguous();
  std::vector<double> losses(static_cast<std::size_t>(counted.count()));
  dispatch_floating(rows.dtype(), kName, [&]<class T>(T) {
    const T* from = rows.data<T>();
    for_counted(counted, classes, [&](std::int64_t begin, std::int64_t end) {
      std::vector<T> scratch(static_cast<std::size_t>(classes));
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        losses[i] = counted.weights[i] * kernels::cross_entropy_row(from + counted.tokens[i] * classes, classes,
                                                                    counted.targets[i], scratch.data());
      }
    });
  });
  Tensor y;
  if (options.reduction == Reduction::none) {
    std::vector<double> each(static_cast<std::size_t>(rows.dim(0)));
    for (std::size_t i = 0; i < losses.size(); ++i) each[static_cast<std::size_t>(counted.tokens[i])] = losses[i];
    y = Tensor::from(each, {rows.dim(0)}).to(rows.dtype());
  } else {
    y = Tensor::scalar(std::accumulate(losses.begin(), losses.end(), 0.0) / chosen.divisor, rows.dtype());
  }
  const Var loss = record(CrossEntropyRule{Saved(rows, x.tracked()), std::move(chosen)}, {&x}, std::move(y));
  return options.reduction == Reduction::none && targets.rank() > 1 ? reshape(loss, targets.shape()) : loss;
}

Var negative_log_likelihood(const Var& log_probabilities, const Tensor& targets, const CrossEntropyOptions& options) {
  const CountedTargets chosen = counted_targets("negative_log_likelihood", log_probabilities, targets, options);
  const LossTokens& counted = chosen.counted;
  const std::int64_t classes = log_probabilities.dim(1), count = counted.count();
  Tensor places({count}, DType::i64), factors({count}, DType::f64);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    places.mutable_data<std::int64_t>()[i] = counted.tokens[at] * classes + counted.targets[at];
    factors.mutable_data<double>()[i] = -counted.weights[at] / chosen.divisor;
  }
  const Var flat = reshape(rows_of(log_probabilities), {log_probabilities.value().numel()});
  const Var losses = gather(flat, places) * factors.to(flat.dtype());
  if (options.reduction != Reduction::none) return sum(losses);
  const Tensor rows = Tensor::from(counted.tokens, {count});
  return reshape(index_add(Tensor::zeros({targets.numel()}, flat.dtype()), rows, losses), targets.shape());
}

namespace {

/// What both entries have: their calls differ in the function, and their samples in what scores are.
OpEntry loss_entry(std::string name, std::string summary, std::string scores,
                   Var (*loss)(const Var&, const Tensor&, const CrossEntropyOptions&)) {
  OpEntry entry;
  entry.name = std::move(name);
  entry.summary = std::move(summary);
  entry.inputs = {{std::move(scores), "[T, C] or [N, C, ...]"},
                  {"targets", "[T] or [N, ...]", InputKind::integer, false, "in [0, C), or ignore_index"},
                  {"class_weights", "[C]", InputKind::constant, true, "ones if absent", "given by the caller"}};
  entry.options = {{"reduction", std::string("mean"), "mean (over the weights that count), sum or none"},
                   {"ignore_index", std::int64_t{-1}, "a target that is not counted"}};
  entry.outputs = {{"loss", "[], or the targets' shape"}};
  entry.call = [loss](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
    const auto reduction = value_of<Reduction>(options.text("reduction", "mean"), "reduction");
    return {loss(in[0], in[1].value(),
                 {reduction, options.integer("ignore_index", -1), in[2].defined() ? in[2].value() : Tensor()})};
  };
  return entry;
}

std::vector<OpVariations> loss_variations() {
  const Tensor weights = Tensor::from({0.5, 2.0, 0.0, 1.25, 0.75}, {5});
  const auto base = [&](std::string name, const Shape& scores, const Shape& targets) {
    return OpVariations{
        {std::move(name), {sample_normal(scores, 11), sample_integers(targets, 12, 5), weights}},
        {{"reduction", {std::string("sum"), std::string("none")}}, {"ignore_index", {std::int64_t{3}}}}};
  };
  return {base("rows", {7, 5}, {7}), base("planes", {3, 5, 2, 3}, {3, 2, 3})};
}

std::vector<OpError> loss_errors() {
  const Tensor scores = sample_normal({2, 3}, 1), targets = sample_integers({2}, 2, 3);
  return {{"target", {scores, Tensor::full({2}, 3, DType::i64), {}}, {}, "needs targets in [0, 3) or -1"},
          {"below", {scores, Tensor::full({2}, -2, DType::i64), {}}, {}, "got -2 at position 0"},
          {"not ignored", {scores, Tensor::full({2}, -1, DType::i64), {}}, {{"ignore_index", std::int64_t{7}}}, "or 7"},
          {"count", {scores, sample_integers({3}, 2, 3), {}}, {}, "needs a target for each row"},
          {"planes", {sample_normal({2, 3, 4}, 1), sample_integers({2, 5}, 2, 3), {}}, {}, "got targets [2, 5]"},
          {"rank", {sample_normal({3}, 1), targets, {}}, {}, "needs scores [T, C]"},
          {"types", {scores, sample_normal({2}, 1), {}}, {}, "needs targets of i32 or i64"},
          {"integers", {sample_integers({2, 3}, 1, 3), targets, {}}, {}, "needs scores of f32 or f64"},
          {"weights", {scores, targets, sample_normal({4}, 1)}, {}, "needs a weight for each of 3 classes"},
          {"reduction", {scores, targets, {}}, {{"reduction", std::string("most")}}, "knows no \"most\""}};
}

std::vector<OpSample> loss_samples() {
  const auto sample = [](std::string name, std::int64_t rows, std::int64_t classes, double size = 1) {
    return OpSample{std::move(name),
                    {sample_normal({rows, classes}, 1, size), sample_integers({rows}, 2, classes), {}}};
  };
  const Tensor some = Tensor::from({std::int64_t{-1}, std::int64_t{2}, std::int64_t{-1}, std::int64_t{0}}, {4});
  return {sample("odd", 7, 5),
          sample("wide", 3, 67, 3),
          sample("many", 130, 2),
          sample("one", 1, 1),
          sample("no rows", 0, 3),
          {"some ignored, i32", {sample_normal({4, 3}, 3), some.to(DType::i32), {}}},
          {"all ignored", {sample_normal({2, 3}, 4), Tensor::full({2}, -1, DType::i64), {}}}};
}

OpSample large_loss() { return {"large", {sample_normal({1024, 512}, 1), sample_integers({1024}, 2, 512), {}}}; }

}  // namespace

void entries::add_cross_entropy(Catalog& catalog) {
  OpEntry logits =
      loss_entry("cross_entropy", "-log softmax(logits)[target] of the targets that count, and their mean.", "logits",
                 cross_entropy);
  logits.samples = [] {
    const double lowest = -std::numeric_limits<double>::infinity();
    std::vector<OpSample> samples = loss_samples();
    samples.push_back({"masked classes",
                       {Tensor::from({1.0, lowest, 2.0, lowest, lowest, -3.0}, {2, 3}),
                        Tensor::from({std::int64_t{0}, std::int64_t{2}}, {2}),
                        {}},
                       {},
                       false});
    samples.push_back({"extreme",
                       {Tensor::from({1e4, -1e4, 9999.0, -1e30, 1e30, 0.0}, {2, 3}),
                        Tensor::from({std::int64_t{2}, std::int64_t{1}}, {2}),
                        {}},
                       {},
                       false});
    return samples;
  };
  OpEntry likelihood = loss_entry("negative_log_likelihood", "-log_probabilities[target] of the targets that count.",
                                  "log_probabilities", negative_log_likelihood);
  likelihood.samples = loss_samples;
  for (OpEntry* entry : {&logits, &likelihood}) {
    entry->errors = loss_errors;
    entry->large = large_loss;
    entry->variations = loss_variations;
    catalog.add(std::move(*entry));
  }
}

}  // namespace tally::ops
