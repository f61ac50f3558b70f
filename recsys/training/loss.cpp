#include "tally/recsys/training/loss.h"

#include <algorithm>

#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/losses/binary_cross_entropy.h"
#include "tally/ops/losses/item_cross_entropy.h"
#include "tally/ops/losses/sampled_softmax.h"
#include "tally/ops/tensor/shape.h"

namespace tally::recsys {
namespace {

/// Above this size of the item table (in elements), a gradient of cross-entropy per shard costs more than a batch
/// stage.
constexpr std::int64_t kLargestShardTable = 1 << 20;

class FunctionLoss final : public Loss {
 public:
  FunctionLoss(std::string description, std::function<Var(const LossRows&)> function)
      : description_(std::move(description)), function_(std::move(function)) {}

  std::string description() const override { return description_; }
  Var operator()(const LossRows& rows) const override { return function_(rows); }

 private:
  std::string description_;
  std::function<Var(const LossRows&)> function_;
};

/// [T, K] from what is shared by sequences, or by all.
Tensor for_each_position(const Tensor& negatives, const TrainingShard& shard, NegativeSampling::Scope scope) {
  if (scope == NegativeSampling::Scope::position) return negatives;
  const std::int64_t count = negatives.dim(-1);
  Tensor own({shard.targets.numel(), count}, DType::i32);
  const auto* in = negatives.data<std::int32_t>();
  auto* out = own.mutable_data<std::int32_t>();
  for (std::int64_t s = 0; s < shard.inputs.count(); ++s) {
    const auto* row = scope == NegativeSampling::Scope::sequence ? in + s * count : in;
    for (std::int64_t i = 0; i < shard.inputs.offsets.length(s); ++i) out = std::copy_n(row, count, out);
  }
  return own;
}

}  // namespace

Tensor LossRows::table_rows(const Tensor& items) const {
  if (batch_items.is_all() || table.dim(0) == batch_items.catalogue()) return items;
  check<ShapeError>(table.dim(0) == batch_items.count(), "loss", "needs a candidate table of all ",
                    batch_items.catalogue(), " items or of the ", batch_items.count(), " prepared; got ",
                    table.shape());
  return batch_items.rows(items);
}

LossRows::Counted LossRows::counted() const {
  std::vector<std::int64_t> rows, targets;
  const Tensor of_table = table_rows(shard.targets);
  for (std::int64_t t = 0; const std::int32_t target : of_table.span<std::int32_t>()) {
    if (target >= 0) {
      rows.push_back(t);
      targets.push_back(target);
    }
    ++t;
  }
  const auto count = static_cast<std::int64_t>(rows.size());
  return {Tensor::from(rows, {count}), Tensor::from(targets, {count})};
}

std::shared_ptr<const Loss> loss_function(std::string description, std::function<Var(const LossRows&)> function) {
  check<ConfigError>(function != nullptr, "loss", "needs a function to compute '", description, "'");
  return std::make_shared<FunctionLoss>(std::move(description), std::move(function));
}

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
  text += word_of(negatives.scope);
  if (!negatives.replacement) text += ", without replacement";
  if (negatives.exclude == NegativeSampling::Exclude::target) text += ", outside the target";
  if (negatives.exclude == NegativeSampling::Exclude::history) text += ", outside the user's training items";
  return text;
}

TrainingLoss::TrainingLoss(const LossOptions& options, LossData data) : options_(options) {
  if (options.kind == LossOptions::Kind::cross_entropy) return;
  const NegativeSampling& negatives = options.negatives;
  const bool binary = options.kind == LossOptions::Kind::binary_cross_entropy;
  check<ConfigError>(options.stage != LossStage::batch, "loss",
                     "needs cross-entropy for the batch stage; sampled losses "
                     "are computed with their shard");
  check<ConfigError>(!binary || negatives.replacement, "loss",
                     "needs negatives with replacement for binary cross-entropy");
  sampler_ = std::make_shared<NegativeSampler>(negatives, std::move(data.histories), data.items);
  if (!binary || options.gbce_calibration == 0) return;
  check<ConfigError>(negatives.distribution == NegativeSampling::Distribution::uniform, "loss",
                     "needs uniform negatives for gBCE");
  check<ConfigError>(negatives.count < data.items, "loss", "needs fewer negatives than the ", data.items,
                     " items for gBCE; got ", negatives.count);
  positive_power_ = ops::gbce_positive_power(negatives.count, data.items, options.gbce_calibration);
}

Tensor TrainingLoss::draw_negatives(const TrainingShard& shard, RngKey key) const {
  return sampler_ == nullptr ? Tensor() : sampler_->draw(shard, key);
}

bool TrainingLoss::whole_batch(std::int64_t items, std::int64_t width) const {
  if (!needs_all_items()) return false;
  if (options_.stage != LossStage::automatic) return options_.stage == LossStage::batch;
  return items * width > kLargestShardTable;
}

Var TrainingLoss::operator()(const LossRows& rows) const {
  switch (options_.kind) {
    case LossOptions::Kind::binary_cross_entropy:
      return binary(rows);
    case LossOptions::Kind::sampled_softmax:
      return softmax(rows);
    default:
      return ops::item_cross_entropy(rows.hidden, rows.table, rows.shard.targets, {.reduction_scale = rows.scale});
  }
}

Var TrainingLoss::binary(const LossRows& rows) const {
  const auto count = static_cast<double>(options_.negatives.count);
  // The mean over negatives alone is 1 / K of a sum in which the target counts K times.
  const bool mean_of_negatives = options_.average == LossOptions::Average::negatives;
  return ops::binary_cross_entropy(
      rows.hidden, rows.table, rows.table_rows(rows.shard.targets),
      rows.table_rows(for_each_position(rows.negatives, rows.shard, options_.negatives.scope)),
      {.reduction_scale = mean_of_negatives ? rows.scale / count : rows.scale,
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

Var TrainingLoss::softmax(const LossRows& rows) const {
  const Tensor positives = rows.table_rows(rows.shard.targets);
  const Tensor log_q_positives = log_probabilities(rows.shard.targets);
  if (options_.negatives.scope != NegativeSampling::Scope::sequence) {
    return ops::sampled_softmax(rows.hidden, rows.table, positives, rows.table_rows(rows.negatives),
                                {.log_q_positives = log_q_positives,
                                 .log_q_negatives = log_probabilities(rows.negatives),
                                 .reduction_scale = rows.scale});
  }
  Var total;
  for (std::int64_t s = 0; s < rows.shard.inputs.count(); ++s) {
    const std::int64_t begin = rows.shard.inputs.offsets.at(s), end = rows.shard.inputs.offsets.at(s + 1);
    const std::span<const std::int32_t> row = rows.negatives.span<std::int32_t>().subspan(
        static_cast<std::size_t>(s * rows.negatives.dim(1)), static_cast<std::size_t>(rows.negatives.dim(1)));
    const auto drawn = std::find(row.begin(), row.end(), -1) - row.begin();  // all, unless too few were left
    const Tensor mine = Tensor::from(row.first(static_cast<std::size_t>(drawn)), {drawn});
    const Var loss = ops::sampled_softmax(
        ops::slice(rows.hidden, 0, begin, end), rows.table, positives.slice(0, begin, end), rows.table_rows(mine),
        {.log_q_positives = options_.log_q ? log_q_positives.slice(0, begin, end) : Tensor(),
         .log_q_negatives = log_probabilities(mine),
         .reduction_scale = rows.scale});
    total = total.defined() ? total + loss : loss;
  }
  return total;
}

}  // namespace tally::recsys
