#include "tally/ops/losses/sampled_softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tally/autograd/tape.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/table_rows.h"
#include "tally/ops/kernels/table_softmax.h"
#include "tally/ops/losses/sampled_scores.h"

namespace tally::ops {
namespace {

constexpr const char* kName = "sampled_softmax";

/// Everything checked and in one type: what both forms compute from.
struct Inputs {
  LossTokens counted;
  Tensor negatives;                         // i64, [K] or [T, K]
  Tensor log_q_positives, log_q_negatives;  // f64, or undefined
  bool remove_hits = true;

  double log_q_positive(std::int64_t token) const {
    return log_q_positives.defined() ? log_q_positives.data<double>()[token] : 0;
  }
};

struct SampledSoftmaxRule {
  static constexpr std::string_view name = kName;
  SampledScores scores;  // with each token's negatives, or with its positive alone when they are shared
  Shape table_shape;
  Saved x, shared_negatives;         // i64 [K], not kept when each token has its own
  mutable Tensor dx, shared_values;  // for a cotangent of 1; backward runs once and may overwrite them

  void backward(BackwardContext& g) const {
    const double cotangent = g.cotangent().item();
    if (g.needs(0)) {
      Gradient gradient = std::move(dx);
      if (cotangent != 1) scale(gradient, cotangent);
      g.give(0, std::get<Tensor>(std::move(gradient)));
    }
    if (g.needs(1)) {
      Gradient gradient = scores.table_gradient(x.get(), table_shape);
      if (shared_negatives.kept()) {
        gradient = add(std::move(gradient), RowGrad::gather(shared_negatives.get(), shared_values, table_shape));
      }
      if (cotangent != 1) scale(gradient, cotangent);
      g.give(1, std::get<RowGrad>(std::move(gradient)));
    }
  }
};

Tensor finite_constants(std::string_view what, const Tensor& values, const Shape& shape) {
  if (!values.defined()) return {};
  check<ShapeError>(values.shape() == shape, kName, "needs ", what, " ", shape, "; got ", values.shape());
  check<DTypeError>(is_floating(values.dtype()), kName, "needs ", what, " of f32 or f64; got ", values.dtype());
  Tensor wide = values.to(DType::f64).contiguous();
  check<ValueError>(all_finite(wide), kName, "needs finite ", what);
  return wide;
}

/// Loss and slopes of one token from its scores, the positive first.
template <class T>
double token_loss(T* scores, std::int64_t samples, double weight, bool wants_slopes) {
  const T largest = kernels::max_value(scores, samples);
  const double positive = static_cast<double>(scores[0]);
  const double sum = kernels::exp_and_sum(scores, scores, T{1}, largest, samples);
  const double log_sum = static_cast<double>(largest) + std::log(sum);
  if (wants_slopes) {
    kernels::scale(scores, static_cast<T>(weight / sum), samples);
    scores[0] = static_cast<T>(weight * std::expm1(positive - log_sum));
  }
  return weight * (log_sum - positive);
}

template <class T>
double own_negatives_loss(const Tensor& x, const Tensor& table, const Inputs& in, SampledSoftmaxRule& rule) {
  const std::int64_t samples = rule.scores.ids.dim(1), negatives = samples - 1;
  const std::int64_t* id = rule.scores.ids.data<std::int64_t>();
  const double* log_q = in.log_q_negatives.defined() ? in.log_q_negatives.data<double>() : nullptr;
  return sum_sampled_losses<T>(
      x, table, rule.scores, rule.dx, [&](std::int64_t first, std::int64_t count, T* scores, bool wants_slopes) {
        double total = 0;
        for (std::int64_t c = first; c < first + count; ++c, scores += samples) {
          const std::int64_t token = rule.scores.tokens[static_cast<std::size_t>(c)];
          scores[0] = static_cast<T>(static_cast<double>(scores[0]) - in.log_q_positive(token));
          for (std::int64_t k = 0; k < negatives; ++k) {
            T& score = scores[1 + k];
            if (log_q != nullptr) score = static_cast<T>(static_cast<double>(score) - log_q[token * negatives + k]);
            const bool hit = id[c * samples + 1 + k] == id[c * samples];
            if (in.remove_hits && hit) score = -std::numeric_limits<T>::infinity();
          }
          total += token_loss(scores, samples, in.counted.weights[static_cast<std::size_t>(c)], wants_slopes);
        }
        return total;
      });
}

/// Which of the shared negatives each counted token leaves out, because they are its positive.
struct Hits {
  std::vector<std::int64_t> bounds, columns;

  Hits(const std::vector<std::int64_t>& targets, const Tensor& negatives) : bounds{0} {
    const auto id = negatives.span<std::int64_t>();
    std::vector<std::pair<std::int64_t, std::int64_t>> sorted;
    for (std::size_t k = 0; k < id.size(); ++k) sorted.emplace_back(id[k], static_cast<std::int64_t>(k));
    std::sort(sorted.begin(), sorted.end());
    for (const std::int64_t target : targets) {
      auto found = std::lower_bound(sorted.begin(), sorted.end(), std::pair(target, std::int64_t{0}));
      for (; found != sorted.end() && found->first == target; ++found) columns.push_back(found->second);
      bounds.push_back(static_cast<std::int64_t>(columns.size()));
    }
  }
};

template <class T>
double shared_negatives_loss(const Tensor& x, const Tensor& table, const Inputs& in, SampledSoftmaxRule& rule) {
  const std::int64_t negatives = in.negatives.numel(), width = x.dim(1), counted = in.counted.count();
  const Tensor source = x.contiguous(), items = table.contiguous();
  const T *px = source.data<T>(), *pe = items.data<T>();
  Tensor gathered({negatives, width}, x.dtype()), bias;
  const std::int64_t* id = in.negatives.data<std::int64_t>();
  T* to = gathered.mutable_data<T>();
  for (std::int64_t k = 0; k < negatives; ++k) std::copy_n(pe + id[k] * width, width, to + k * width);
  if (in.log_q_negatives.defined()) {
    bias = in.log_q_negatives.to(x.dtype());
    if (!bias.unique()) bias = bias.clone();
    kernels::scale(bias.mutable_data<T>(), T{-1}, negatives);
  }
  const auto& [tokens, targets, weights] = in.counted;
  std::vector<double> target_scores(static_cast<std::size_t>(counted)), target_slopes(target_scores.size());
  for (std::int64_t c = 0; c < counted; ++c) {
    const auto at = static_cast<std::size_t>(c);
    const T score = kernels::dot(px + tokens[at] * width, pe + targets[at] * width, width);
    target_scores[at] = static_cast<double>(score) - in.log_q_positive(tokens[at]);
  }
  kernels::TableSoftmax<T> problem{.x = px,
                                   .table = gathered.data<T>(),
                                   .bias = bias.defined() ? bias.data<T>() : nullptr,
                                   .items = negatives,
                                   .width = width,
                                   .tokens = tokens,
                                   .weights = weights,
                                   .target_scores = target_scores};
  const Hits hits(in.remove_hits ? targets : std::vector<std::int64_t>(), in.negatives);
  if (!hits.columns.empty()) {
    problem.excluded_bounds = hits.bounds;
    problem.excluded = hits.columns;
  }
  const bool wants_table = rule.scores.slopes.defined(), wants_x = rule.dx.defined();
  if (wants_table) rule.shared_values = Tensor::zeros({negatives, width}, x.dtype());
  const kernels::TableSoftmaxGradients<T> gradients{
      .x = wants_x ? rule.dx.mutable_data<T>() : nullptr,
      .table = wants_table ? rule.shared_values.mutable_data<T>() : nullptr,
      .target_scores = target_slopes.data()};
  const double loss = kernels::table_softmax(problem, gradients);
  for (std::int64_t c = 0; c < counted; ++c) {
    const auto at = static_cast<std::size_t>(c);
    const T slope = static_cast<T>(target_slopes[at]);
    if (wants_table) rule.scores.slopes.mutable_data<T>()[c] = slope;
    if (wants_x) kernels::axpy(gradients.x + tokens[at] * width, slope, pe + targets[at] * width, width);
  }
  return loss;
}

}  // namespace

Var sampled_softmax(const Var& x, const Var& table, const Tensor& positives, const Tensor& negatives,
                    const SampledSoftmaxOptions& options) {
  check_tokens_and_table(kName, x.value(), table.value());
  const std::int64_t tokens = x.dim(0), items = table.dim(0);
  const bool shared = negatives.rank() == 1;
  check<ShapeError>(shared || (negatives.rank() == 2 && negatives.dim(0) == tokens), kName,
                    "needs negatives [K] or [T, K] for ", tokens, " tokens; got ", negatives.shape());
  const Inputs in{LossTokens::select(kName, positives, options.weights, options.reduction_scale, tokens, items),
                  checked_ids(kName, "negatives", negatives, items),
                  finite_constants("log_q_positives", options.log_q_positives, {tokens}),
                  finite_constants("log_q_negatives", options.log_q_negatives, negatives.shape()),
                  options.remove_accidental_hits};
  const bool recorded = recording(x, table);
  SampledSoftmaxRule rule{{in.counted.tokens, {}, {}}, table.shape(), Saved(x.value(), table.tracked()), {}, {}, {}};
  const Tensor none({tokens, 0}, DType::i64);
  rule.scores.ids = positives_and_negatives(in.counted, shared ? none : in.negatives);
  if (recorded && table.tracked()) rule.scores.slopes = Tensor(rule.scores.ids.shape(), x.dtype());
  if (recorded && x.tracked()) rule.dx = Tensor::zeros(x.shape(), x.dtype());
  if (shared) rule.shared_negatives = Saved(in.negatives, table.tracked());
  const double loss = dispatch_floating(x.dtype(), kName, [&]<class T>(T) {
    return shared ? shared_negatives_loss<T>(x.value(), table.value(), in, rule)
                  : own_negatives_loss<T>(x.value(), table.value(), in, rule);
  });
  return record(std::move(rule), {&x, &table}, Tensor::scalar(loss, x.dtype()));
}

void entries::add_sampled_softmax(Catalog& catalog) {
  catalog.add({
      .name = kName,
      .summary = "Softmax cross-entropy over a positive and sampled negatives, with logQ correction.",
      .inputs = {{"x", "[T, D]"},
                 {"table", "[I, D]"},
                 {"positives", "[T]", InputKind::integer, false, "row of the table; -1: not counted"},
                 {"negatives", "[K] or [T, K]", InputKind::integer, false, "rows of the table, shared or each token's"},
                 {"log_q_positives", "[T]", InputKind::constant, true, "log probability of drawing the positive",
                  "of how negatives are drawn"},
                 {"log_q_negatives", "[K] or [T, K]", InputKind::constant, true, "log probability of drawing each",
                  "of how negatives are drawn"},
                 {"weights", "[T]", InputKind::constant, true, "factor of each token's loss", "given, not learned"}},
      .options = {{"remove_accidental_hits", true, "a negative that is the positive takes no part"},
                  {"reduction_scale", 1.0, "factor of the whole sum"}},
      .outputs = {{"loss", "[]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {sampled_softmax(in[0], in[1], in[2].value(), in[3].value(),
                                {.log_q_positives = in[4].value(),
                                 .log_q_negatives = in[5].value(),
                                 .weights = in[6].value(),
                                 .remove_accidental_hits = options.flag("remove_accidental_hits", true),
                                 .reduction_scale = options.number("reduction_scale", 1)})};
      },
      .samples =
          [] {
            const auto x = [](std::int64_t tokens, std::int64_t width) { return sample_normal({tokens, width}, 1); };
            const auto table = [](std::int64_t items, std::int64_t width) { return sample_normal({items, width}, 2); };
            const Tensor positives = Tensor::from<std::int64_t>({4, -1, 0, 2}, {4});
            const Tensor per_token = Tensor::from<std::int64_t>({1, 4, 1, 0, 0, 0, 3, 4, 3, 1, 2, 2}, {4, 3});
            const Tensor shared = Tensor::from<std::int64_t>({2, 5, 0, 2, 1}, {5});
            const Tensor weights = Tensor::from<double>({1, 1, 0.5, 2}, {4});
            const OpOptions keep{{"remove_accidental_hits", false}, {"reduction_scale", 0.25}};
            const Tensor far = Tensor::from<double>({1e4, -1e4, 0, 1}, {4, 1});
            const Tensor far_table = Tensor::from<double>({1, -1, 0.5, 0, 1}, {5, 1});
            return std::vector<OpSample>{
                {"own negatives", {x(4, 3), table(5, 3), positives, per_token, {}, {}, {}}},
                {"own negatives, logQ, hits kept",
                 {x(4, 3), table(5, 3), positives, per_token, sample_normal({4}, 3), sample_normal({4, 3}, 4), weights},
                 keep},
                {"shared negatives", {x(4, 3), table(6, 3), positives, shared, {}, {}, {}}},
                {"shared negatives, logQ, hits kept",
                 {x(4, 3), table(6, 3), positives, shared, sample_normal({4}, 5), sample_normal({5}, 6), weights},
                 keep},
                {"shared negatives, logQ, i32",
                 {x(4, 18),
                  table(6, 18),
                  positives.to(DType::i32),
                  shared.to(DType::i32),
                  sample_normal({4}, 7),
                  sample_normal({5}, 8),
                  {}}},
                {"own, wide", {x(4, 70), table(5, 70), positives, per_token, {}, sample_normal({4, 3}, 9), {}}},
                {"shared, wide", {x(4, 70), table(6, 70), positives, shared, {}, sample_normal({5}, 10), {}}},
                {"no negatives", {x(4, 3), table(5, 3), positives, Tensor({4, 0}, DType::i64), {}, {}, {}}},
                {"no shared negatives", {x(4, 3), table(5, 3), positives, Tensor({0}, DType::i64), {}, {}, {}}},
                {"one item",
                 {x(1, 1), table(1, 1), Tensor::zeros({1}, DType::i64), Tensor::zeros({1}, DType::i64), {}, {}, {}}},
                {"empty", {x(0, 3), table(4, 3), Tensor({0}, DType::i64), sample_integers({2}, 1, 4), {}, {}, {}}},
                {"empty, own", {x(0, 3), table(4, 3), Tensor({0}, DType::i64), Tensor({0, 2}, DType::i64), {}, {}, {}}},
                {"all ignored", {x(4, 3), table(5, 3), Tensor::full({4}, -1, DType::i64), per_token, {}, {}, {}}},
                {"ties", {Tensor::zeros({4, 3}, DType::f64), table(6, 3), positives, shared, {}, {}, {}}},
                {"extreme, own", {far, far_table, positives, per_token, {}, {}, {}}, {}, false},
                {"extreme, shared",
                 {far, far_table, positives, Tensor::from<std::int64_t>({1, 3}, {2}), {}, {}, {}},
                 {},
                 false},
            };
          },
      .errors =
          [] {
            const Tensor x = sample_normal({2, 3}, 1), table = sample_normal({4, 3}, 2);
            const Tensor positives = Tensor::from<std::int64_t>({0, 3}, {2}),
                         shared = Tensor::from<std::int64_t>({1}, {1});
            return std::vector<OpError>{
                {"width", {x, sample_normal({4, 2}, 1), positives, shared, {}, {}, {}}, {}, "of equal D"},
                {"positive",
                 {x, table, Tensor::from<std::int64_t>({0, 4}, {2}), shared, {}, {}, {}},
                 {},
                 "got 4 at position 1"},
                {"negative",
                 {x, table, positives, Tensor::from<std::int64_t>({0, 1, 2, 9}, {2, 2}), {}, {}, {}},
                 {},
                 "negatives in [0, 4); got 9 at position [1, 1]"},
                {"negatives",
                 {x, table, positives, Tensor({3, 2}, DType::i64), {}, {}, {}},
                 {},
                 "[K] or [T, K] for 2 tokens"},
                {"log q",
                 {x, table, positives, shared, {}, sample_normal({2}, 1), {}},
                 {},
                 "log_q_negatives [1]; got [2]"},
                {"infinite log q",
                 {x,
                  table,
                  positives,
                  shared,
                  Tensor::full({2}, -std::numeric_limits<double>::infinity(), DType::f64),
                  {},
                  {}},
                 {},
                 "finite log_q_positives"},
            };
          },
      .large =
          [] {
            return OpSample{"large",
                            {sample_normal({4096, 64}, 1),
                             sample_normal({20000, 64}, 2, 0.1),
                             sample_integers({4096}, 3, 20000),
                             sample_integers({1000}, 4, 20000),
                             {},
                             {},
                             {}},
                            {{"reduction_scale", 1.0 / 4096}}};
          },
      .variations =
          [] {
            const auto call = [](const char* name, const Shape& negatives) {
              return OpVariations{
                  {name,
                   {sample_normal({4, 3}, 21), sample_normal({6, 3}, 22),
                    Tensor::from<std::int64_t>({4, -1, 0, 2}, {4}), sample_integers(negatives, 23, 6),
                    sample_normal({4}, 24), sample_normal(negatives, 25), Tensor::from<double>({1, 1, 0.5, 2}, {4})}},
                  {{"remove_accidental_hits", {false}}, {"reduction_scale", {0.25}}}};
            };
            return std::vector<OpVariations>{call("own negatives", {4, 5}), call("shared negatives", {7})};
          },
  });
}

}  // namespace tally::ops
