#include "tally/ops/losses/binary_cross_entropy.h"

#include <cmath>
#include <limits>

#include "tally/autograd/tape.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/logistic_loss.h"
#include "tally/ops/losses/sampled_scores.h"

namespace tally::ops {
namespace {

constexpr const char* kSampled = "binary_cross_entropy";
constexpr const char* kLogits = "binary_cross_entropy_with_logits";

struct BinaryCrossEntropyRule {
  static constexpr std::string_view name = kSampled;
  SampledScores scores;
  Shape table_shape;
  Saved x;
  mutable Tensor dx;  // for a cotangent of 1; backward runs once and may scale it in place

  void backward(BackwardContext& g) const {
    const double cotangent = g.cotangent().item();
    if (g.needs(0)) {
      Gradient gradient = std::move(dx);
      if (cotangent != 1) scale(gradient, cotangent);
      g.give(0, std::get<Tensor>(std::move(gradient)));
    }
    if (g.needs(1)) {
      Gradient gradient = scores.table_gradient(x.get(), table_shape);
      if (cotangent != 1) scale(gradient, cotangent);
      g.give(1, std::get<RowGrad>(std::move(gradient)));
    }
  }
};

/// Loss and slopes of a block of tokens with `samples` scores each, the positive first.
template <class T>
double block_loss(T* scores, const double* weights, std::int64_t tokens, std::int64_t samples, double positive_power,
                  bool wants_slopes) {
  std::vector<T> losses(static_cast<std::size_t>(tokens * samples));
  // -log sigmoid(s) = log(1 + exp(-s)): a positive is a negative of score -s.
  for (std::int64_t t = 0; t < tokens; ++t) scores[t * samples] = -scores[t * samples];
  kernels::logistic_loss(losses.data(), wants_slopes ? scores : nullptr, scores, nullptr, tokens * samples);
  double total = 0;
  for (std::int64_t t = 0; t < tokens; ++t) {
    const T* token = losses.data() + t * samples;
    const double positive = positive_power * static_cast<double>(token[0]);
    total += weights[t] * (positive + kernels::sum(token + 1, samples - 1));
    if (!wants_slopes) continue;
    T* slope = scores + t * samples;
    slope[0] = static_cast<T>(-positive_power * weights[t] * static_cast<double>(slope[0]));
    kernels::scale(slope + 1, static_cast<T>(weights[t]), samples - 1);
  }
  return total;
}

struct LogitsRule {
  static constexpr std::string_view name = kLogits;
  mutable Tensor gradient;  // for a cotangent of 1; backward runs once and may scale it in place

  void backward(BackwardContext& g) const {
    const double cotangent = g.cotangent().item();
    Gradient scaled = std::move(gradient);
    if (cotangent != 1) scale(scaled, cotangent);
    g.give(0, std::get<Tensor>(std::move(scaled)));
  }
};

constexpr std::int64_t kLogitsBlock = 4096;

}  // namespace

Var binary_cross_entropy(const Var& x, const Var& table, const Tensor& positives, const Tensor& negatives,
                         const BinaryCrossEntropyOptions& options) {
  check_tokens_and_table(kSampled, x.value(), table.value());
  const std::int64_t tokens = x.dim(0), items = table.dim(0);
  check<ShapeError>(negatives.rank() == 2 && negatives.dim(0) == tokens, kSampled, "needs negatives [T, K] for ",
                    tokens, " tokens; got ", negatives.shape());
  check<ValueError>(std::isfinite(options.positive_power), kSampled, "needs a finite positive power; got ",
                    options.positive_power);
  const std::int64_t samples = 1 + negatives.dim(1);
  const double factor = options.reduction_scale / (options.average_over_samples ? static_cast<double>(samples) : 1);
  LossTokens counted = LossTokens::select(kSampled, positives, options.weights, factor, tokens, items);
  const Tensor drawn = checked_ids(kSampled, "negatives", negatives, items);
  const bool recorded = recording(x, table);
  BinaryCrossEntropyRule rule{
      {{}, positives_and_negatives(counted, drawn), {}}, table.shape(), Saved(x.value(), table.tracked()), {}};
  rule.scores.tokens = std::move(counted.tokens);
  if (recorded && table.tracked()) rule.scores.slopes = Tensor(rule.scores.ids.shape(), x.dtype());
  if (recorded && x.tracked()) rule.dx = Tensor::zeros(x.shape(), x.dtype());
  const double loss = dispatch_floating(x.dtype(), kSampled, [&]<class T>(T) {
    return sum_sampled_losses<T>(x.value(), table.value(), rule.scores, rule.dx,
                                 [&](std::int64_t first, std::int64_t count, T* scores, bool wants_slopes) {
                                   return block_loss(scores, counted.weights.data() + first, count, samples,
                                                     options.positive_power, wants_slopes);
                                 });
  });
  return record(std::move(rule), {&x, &table}, Tensor::scalar(loss, x.dtype()));
}

double gbce_positive_power(std::int64_t negatives, std::int64_t items, double calibration) {
  check<ValueError>(negatives >= 1 && negatives < items, "gbce_positive_power",
                    "needs at least one negative and fewer than items; got ", negatives, " of ", items);
  check<ValueError>(calibration >= 0 && calibration <= 1, "gbce_positive_power", "needs a calibration in [0, 1]; got ",
                    calibration);
  return 1 - calibration * (1 - static_cast<double>(negatives) / static_cast<double>(items - 1));
}

Var binary_cross_entropy_with_logits(const Var& logits, const Tensor& targets,
                                     const LogitsCrossEntropyOptions& options) {
  check<ShapeError>(logits.shape() == targets.shape(), kLogits, "needs logits and targets of one shape; got ",
                    logits.shape(), " and ", targets.shape());
  check<DTypeError>(is_floating(logits.dtype()) && is_floating(targets.dtype()), kLogits,
                    "needs floating logits and targets; got ", logits.dtype(), " and ", targets.dtype());
  check<ValueError>(std::isfinite(options.reduction_scale), kLogits, "needs a finite reduction scale; got ",
                    options.reduction_scale);
  LogitsRule rule;
  if (recording(logits)) rule.gradient = Tensor(logits.shape(), logits.dtype());
  const Tensor z = logits.value().contiguous(), y = targets.to(logits.dtype()).contiguous();
  const double loss = dispatch_floating(logits.dtype(), kLogits, [&]<class T>(T) {
    T* gradient = rule.gradient.defined() ? rule.gradient.mutable_data<T>() : nullptr;
    const T *pz = z.data<T>(), *py = y.data<T>();
    return parallel_reduce(
        z.numel(), kLogitsBlock, 0.0,
        [&](std::int64_t begin, std::int64_t end) {
          std::vector<T> losses(static_cast<std::size_t>(end - begin));
          T* slopes = gradient == nullptr ? nullptr : gradient + begin;
          kernels::logistic_loss(losses.data(), slopes, pz + begin, py + begin, end - begin);
          if (slopes != nullptr) kernels::scale(slopes, static_cast<T>(options.reduction_scale), end - begin);
          return kernels::sum(losses.data(), end - begin);
        },
        [](double a, double b) { return a + b; });
  });
  return record(std::move(rule), {&logits}, Tensor::scalar(loss * options.reduction_scale, logits.dtype()));
}

void entries::add_binary_cross_entropy(Catalog& catalog) {
  catalog.add({
      .name = kSampled,
      .summary = "Sum over tokens of -beta log sigmoid(x . positive) - sum_k log sigmoid(-x . negative_k).",
      .inputs = {{"x", "[T, D]"},
                 {"table", "[I, D]"},
                 {"positives", "[T]", InputKind::integer, false, "row of the table; -1: not counted"},
                 {"negatives", "[T, K]", InputKind::integer, false, "rows of the table"},
                 {"weights", "[T]", InputKind::constant, true, "factor of each token's loss", "given, not learned"}},
      .options = {{"reduction_scale", 1.0, "factor of the whole sum"},
                  {"average_over_samples", false, "divide a token's loss by 1 + K"},
                  {"positive_power", 1.0, "beta of gBCE"}},
      .outputs = {{"loss", "[]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {binary_cross_entropy(in[0], in[1], in[2].value(), in[3].value(),
                                     {.weights = in[4].value(),
                                      .reduction_scale = options.number("reduction_scale", 1),
                                      .average_over_samples = options.flag("average_over_samples", false),
                                      .positive_power = options.number("positive_power", 1)})};
      },
      .samples =
          [] {
            const auto x = [](std::int64_t tokens, std::int64_t width) { return sample_normal({tokens, width}, 1); };
            const auto table = [](std::int64_t items, std::int64_t width) { return sample_normal({items, width}, 2); };
            const Tensor positives = Tensor::from<std::int64_t>({4, -1, 0, 2}, {4});
            const Tensor negatives = Tensor::from<std::int64_t>({1, 4, 1, 0, 0, 0, 3, 4, 3, 1, 2, 2}, {4, 3});
            const Tensor single = Tensor::from<std::int64_t>({0}, {1});
            return std::vector<OpSample>{
                {"odd", {x(4, 3), table(5, 3), positives, negatives, {}}},
                {"gBCE",
                 {x(4, 3), table(5, 3), positives, negatives, Tensor::from<double>({1, 1, 0.5, 2}, {4})},
                 {{"reduction_scale", 0.25}, {"average_over_samples", true}, {"positive_power", 0.75}}},
                {"wide, i32", {x(4, 70), table(5, 70), positives.to(DType::i32), negatives.to(DType::i32), {}}},
                {"one negative", {x(4, 2), table(5, 2), positives, negatives.slice(1, 0, 1), {}}},
                {"no negatives", {x(4, 2), table(5, 2), positives, Tensor({4, 0}, DType::i64), {}}},
                {"one", {x(1, 1), table(1, 1), single, Tensor::zeros({1, 1}, DType::i64), {}}},
                {"empty", {x(0, 3), table(4, 3), Tensor({0}, DType::i64), Tensor({0, 2}, DType::i64), {}}},
                {"all ignored", {x(4, 3), table(5, 3), Tensor::full({4}, -1, DType::i64), negatives, {}}},
                {"ties", {Tensor::zeros({4, 3}, DType::f64), table(5, 3), positives, negatives, {}}},
                {"two blocks",
                 {x(300, 1), table(7, 1), sample_integers({300}, 3, 7), sample_integers({300, 2}, 4, 7), {}}},
                {"extreme",
                 {Tensor::from<double>({1e4, -1e4, 0, 1}, {4, 1}),
                  Tensor::from<double>({1, -1, 0.5, 0, 1}, {5, 1}),
                  positives,
                  negatives,
                  {}},
                 {},
                 false},
            };
          },
      .errors =
          [] {
            const Tensor x = sample_normal({2, 3}, 1), table = sample_normal({4, 3}, 2);
            const Tensor positives = Tensor::from<std::int64_t>({0, 3}, {2}), drawn = Tensor::zeros({2, 2}, DType::i64);
            return std::vector<OpError>{
                {"width", {x, sample_normal({4, 2}, 1), positives, drawn, {}}, {}, "of equal D"},
                {"positive", {x, table, Tensor::from<std::int64_t>({0, 4}, {2}), drawn, {}}, {}, "got 4 at position 1"},
                {"negative",
                 {x, table, positives, Tensor::from<std::int64_t>({0, 1, -1, 2}, {2, 2}), {}},
                 {},
                 "negatives in [0, 4); got -1 at position [1, 0]"},
                {"negatives",
                 {x, table, positives, Tensor({3, 2}, DType::i64), {}},
                 {},
                 "negatives [T, K] for 2 tokens"},
                {"power",
                 {x, table, positives, drawn, {}},
                 {{"positive_power", std::numeric_limits<double>::infinity()}},
                 "finite positive power"},
            };
          },
      .large =
          [] {
            return OpSample{"large",
                            {sample_normal({4096, 64}, 1),
                             sample_normal({20000, 64}, 2, 0.1),
                             sample_integers({4096}, 3, 20000),
                             sample_integers({4096, 16}, 4, 20000),
                             {}},
                            {{"reduction_scale", 1.0 / 4096}}};
          },
      .variations =
          [] {
            return std::vector<OpVariations>{
                {{"tokens",
                  {sample_normal({5, 3}, 11), sample_normal({7, 3}, 12),
                   Tensor::from<std::int64_t>({4, -1, 0, 2, 6}, {5}), sample_integers({5, 2}, 13, 7),
                   Tensor::from<double>({1, 1, 0.5, 2, -0.75}, {5})}},
                 {{"reduction_scale", {0.25}}, {"average_over_samples", {true}}, {"positive_power", {0.75}}}}};
          },
  });
  catalog.add({
      .name = kLogits,
      .summary = "Sum of log(1 + exp(z)) - y z: cross-entropy of probabilities y against sigmoid(z).",
      .inputs = {{"logits", "[...]"},
                 {"targets", "[...]", InputKind::constant, false, "probabilities", "what is to be learned"}},
      .options = {{"reduction_scale", 1.0, "factor of the sum"}},
      .outputs = {{"loss", "[]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {binary_cross_entropy_with_logits(in[0], in[1].value(), {options.number("reduction_scale", 1)})};
      },
      .samples =
          [] {
            const auto labels = [](const Shape& shape) { return sample_integers(shape, 2, 2).to(DType::f64); };
            return std::vector<OpSample>{
                {"odd", {sample_normal({3, 7}, 1, 3), labels({3, 7})}, {{"reduction_scale", 0.5}}},
                {"soft targets", {sample_normal({4}, 3), Tensor::from<double>({0.25, 0.5, 0.9, 1}, {4})}},
                {"scalar", {sample_normal({}, 4), labels({})}},
                {"empty", {sample_normal({0, 2}, 5), labels({0, 2})}},
                {"zeros", {Tensor::zeros({5}, DType::f64), labels({5})}},
                {"extreme",
                 {Tensor::from<double>({1e4, -1e4, 1e4, -1e4}, {4}), Tensor::from<double>({0, 0, 1, 1}, {4})},
                 {},
                 false},
            };
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"shape", {sample_normal({3}, 1), sample_normal({4}, 1)}, {}, "one shape; got [3] and [4]"},
                {"type", {sample_normal({3}, 1), sample_integers({3}, 1, 2)}, {}, "floating logits and targets"},
            };
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({1 << 20}, 1), sample_integers({1 << 20}, 2, 2).to(DType::f64)}};
          },
  });
}

}  // namespace tally::ops
