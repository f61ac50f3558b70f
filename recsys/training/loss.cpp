#include "tally/recsys/training/loss.h"

#include <algorithm>

#include "tally/ops/binary_cross_entropy.h"
#include "tally/ops/elementwise.h"
#include "tally/ops/item_cross_entropy.h"
#include "tally/ops/sampled_softmax.h"
#include "tally/ops/shape.h"

namespace tally::recsys {
namespace {

using Scope = NegativeSampling::Scope;

/// Rows of the candidate table that belong to items.
Tensor table_rows(const Var& table, const BatchItems& prepared, const Tensor& items) {
  if (prepared.is_all() || table.dim(0) == prepared.catalogue()) return items;
  check<ShapeError>(table.dim(0) == prepared.count(), "loss", "needs a candidate table of all ", prepared.catalogue(),
                    " items or of the ", prepared.count(), " prepared; got ", table.shape());
  return prepared.rows(items);
}

/// [T, K] from what is shared by sequences, or by all.
Tensor for_each_position(const Tensor& negatives, const TrainingShard& shard, Scope scope) {
  if (scope == Scope::position) return negatives;
  const std::int64_t count = negatives.dim(-1);
  Tensor own({shard.targets.numel(), count}, DType::i32);
  const auto* in = negatives.data<std::int32_t>();
  auto* out = own.mutable_data<std::int32_t>();
  for (std::int64_t s = 0; s < shard.inputs.count(); ++s) {
    const auto* row = scope == Scope::sequence ? in + s * count : in;
    for (std::int64_t i = 0; i < shard.inputs.offsets.length(s); ++i) out = std::copy_n(row, count, out);
  }
  return own;
}

}  // namespace

std::string LossOptions::description() const {
  if (kind == Kind::cross_entropy) return "cross-entropy over all items";
  const bool binary = kind == Kind::binary_cross_entropy;
  std::string text = binary ? "binary cross-entropy" : "sampled softmax";
  if (binary && gbce_calibration > 0) text += detail::join(" calibrated by ", gbce_calibration);
  if (binary && average == Average::samples) text += ", mean of samples";
  if (binary && average == Average::negatives) text += ", mean of negatives";
  if (log_q) text += " with logQ";
  text += detail::join(", ", negatives.count);
  if (negatives.distribution == NegativeSampling::Distribution::popularity) {
    text += detail::join(" popularity^", negatives.alpha);
  } else {
    text += " uniform";
  }
  text += negatives.count == 1 ? " negative for each " : " negatives for each ";
  text += negatives.scope == Scope::position ? "position" : negatives.scope == Scope::sequence ? "sequence" : "batch";
  if (!negatives.replacement) text += ", without replacement";
  if (negatives.exclude == NegativeSampling::Exclude::target) text += ", outside the target";
  if (negatives.exclude == NegativeSampling::Exclude::history) text += ", outside the user's training items";
  return text;
}

TrainingLoss::TrainingLoss(const LossOptions& options, std::vector<std::span<const std::int32_t>> histories,
                           std::int64_t items)
    : options_(options) {
  if (options.kind == LossOptions::Kind::cross_entropy) return;
  const NegativeSampling& negatives = options.negatives;
  const bool binary = options.kind == LossOptions::Kind::binary_cross_entropy;
  check<ConfigError>(options.stage != LossStage::batch, "loss",
                     "needs cross-entropy for the batch stage; sampled losses "
                     "are computed with their shard");
  check<ConfigError>(!binary || negatives.replacement, "loss",
                     "needs negatives with replacement for binary cross-entropy");
  sampler_ = std::make_shared<NegativeSampler>(negatives, std::move(histories), items);
  if (!binary || options.gbce_calibration == 0) return;
  check<ConfigError>(negatives.distribution == NegativeSampling::Distribution::uniform, "loss",
                     "needs uniform negatives for gBCE");
  check<ConfigError>(negatives.count < items, "loss", "needs fewer negatives than the ", items, " items for gBCE; got ",
                     negatives.count);
  positive_power_ = ops::gbce_positive_power(negatives.count, items, options.gbce_calibration);
}

Tensor TrainingLoss::draw_negatives(const TrainingShard& shard, RngKey key) const {
  return sampler_ == nullptr ? Tensor() : sampler_->draw(shard, key);
}

Var TrainingLoss::operator()(const Var& hidden, const Var& table, const TrainingShard& shard, const Tensor& negatives,
                             const BatchItems& prepared, double scale) const {
  switch (options_.kind) {
    case LossOptions::Kind::binary_cross_entropy:
      return binary(hidden, table, shard, negatives, prepared, scale);
    case LossOptions::Kind::sampled_softmax:
      return softmax(hidden, table, shard, negatives, prepared, scale);
    default:
      return ops::item_cross_entropy(hidden, table, shard.targets, {.reduction_scale = scale});
  }
}

Var TrainingLoss::binary(const Var& hidden, const Var& table, const TrainingShard& shard, const Tensor& negatives,
                         const BatchItems& prepared, double scale) const {
  const auto count = static_cast<double>(options_.negatives.count);
  // The mean over negatives alone is 1 / K of a sum in which the target counts K times.
  const bool mean_of_negatives = options_.average == LossOptions::Average::negatives;
  return ops::binary_cross_entropy(
      hidden, table, table_rows(table, prepared, shard.targets),
      table_rows(table, prepared, for_each_position(negatives, shard, options_.negatives.scope)),
      {.reduction_scale = mean_of_negatives ? scale / count : scale,
       .average_over_samples = options_.average == LossOptions::Average::samples,
       .positive_power = mean_of_negatives ? positive_power_ * count : positive_power_});
}

Tensor TrainingLoss::log_probabilities(const Tensor& items) const {
  if (!options_.log_q) return {};
  Tensor log_q(items.shape(), DType::f64);
  const auto* of = sampler_->log_probabilities().data<double>();
  const auto* item = items.data<std::int32_t>();
  auto* out = log_q.mutable_data<double>();
  for (std::int64_t i = 0; i < items.numel(); ++i) out[i] = item[i] < 0 ? 0 : of[item[i]];
  return log_q;
}

Var TrainingLoss::softmax(const Var& hidden, const Var& table, const TrainingShard& shard, const Tensor& negatives,
                          const BatchItems& prepared, double scale) const {
  const Tensor positives = table_rows(table, prepared, shard.targets);
  const Tensor log_q_positives = log_probabilities(shard.targets);
  if (options_.negatives.scope != Scope::sequence) {
    return ops::sampled_softmax(hidden, table, positives, table_rows(table, prepared, negatives),
                                {.log_q_positives = log_q_positives,
                                 .log_q_negatives = log_probabilities(negatives),
                                 .reduction_scale = scale});
  }
  Var total;
  for (std::int64_t s = 0; s < shard.inputs.count(); ++s) {
    const std::int64_t begin = shard.inputs.offsets.at(s), end = shard.inputs.offsets.at(s + 1);
    const std::span<const std::int32_t> row = negatives.span<std::int32_t>().subspan(
        static_cast<std::size_t>(s * negatives.dim(1)), static_cast<std::size_t>(negatives.dim(1)));
    const auto drawn = std::find(row.begin(), row.end(), -1) - row.begin();  // all, unless too few were left
    const Tensor mine = Tensor::from(row.first(static_cast<std::size_t>(drawn)), {drawn});
    const Var loss = ops::sampled_softmax(
        ops::slice(hidden, 0, begin, end), table, positives.slice(0, begin, end), table_rows(table, prepared, mine),
        {.log_q_positives = options_.log_q ? log_q_positives.slice(0, begin, end) : Tensor(),
         .log_q_negatives = log_probabilities(mine),
         .reduction_scale = scale});
    total = total.defined() ? total + loss : loss;
  }
  return total;
}

}  // namespace tally::recsys
