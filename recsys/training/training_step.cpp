#include "tally/recsys/training/training_step.h"

#include <algorithm>

#include "tally/ops/elementwise.h"
#include "tally/ops/item_cross_entropy.h"

namespace tally::recsys {
namespace {

/// Above this size of the item table (in elements), a gradient per shard costs more than a batch stage.
constexpr std::int64_t kLargestShardTable = 1 << 20;

Tensor all_targets(const TrainingBatch& batch) {
  Tensor targets({batch.targets}, DType::i32);
  auto* out = targets.mutable_data<std::int32_t>();
  for (const TrainingShard& shard : batch.shards) {
    const auto part = shard.targets.span<std::int32_t>();
    out = std::copy(part.begin(), part.end(), out);
  }
  return targets;
}

}  // namespace

StageResult training_step(const SequenceModel& model, const TrainingBatch& batch, RngKey key, LossStage stage,
                          const std::function<void(Tape&)>& configure) {
  check<ValueError>(batch.targets > 0, "training_step", "needs a batch with at least one target");
  if (stage == LossStage::automatic) {
    stage = model.num_items() * model.width() <= kLargestShardTable ? LossStage::shard : LossStage::batch;
  }
  const double scale = 1.0 / static_cast<double>(batch.targets);
  const BatchItems items = model.prepares() ? BatchItems::all(model.num_items()) : BatchItems();
  const auto prepared = [&](std::span<const Var> values) { return Prepared{items, {values.begin(), values.end()}}; };
  const auto loss = [&](const Var& hidden, const Tensor& targets, const Prepared& with) {
    return ops::item_cross_entropy(hidden, model.candidate_table(with), targets, {.reduction_scale = scale});
  };
  std::vector<std::vector<std::function<void()>>> updates(batch.shards.size());
  Stages stages;
  if (model.prepares()) stages.prepare = [&] { return model.prepare(items); };
  stages.shards = static_cast<std::int64_t>(batch.shards.size());
  stages.encode = [&](std::int64_t s, std::span<const Var> values) -> ShardOutput {
    const TrainingShard& shard = batch.shards[static_cast<std::size_t>(s)];
    const nn::Context context{true, key, shard.first_row, &updates[static_cast<std::size_t>(s)]};
    const Prepared with = prepared(values);
    const Var hidden = model.encode(shard.inputs, with, context);
    Var auxiliary = model.auxiliary_loss(shard.inputs, shard.targets, with, context);
    if (auxiliary.defined()) auxiliary = auxiliary * scale;
    if (stage == LossStage::batch) return {auxiliary, {hidden}};
    const Var main = loss(hidden, shard.targets, with);
    return {auxiliary.defined() ? main + auxiliary : main, {}};
  };
  stages.wide = [&](std::int64_t s) { return batch.shards[static_cast<std::size_t>(s)].wide; };
  if (stage == LossStage::batch) {
    stages.finish = [&](std::span<const Var> rows, std::span<const Var> values) {
      return loss(rows[0], all_targets(batch), prepared(values));
    };
  }
  StageResult result = run_stages(stages, configure);
  for (const auto& shard_updates : updates) {
    for (const auto& update : shard_updates) update();
  }
  return result;
}

}  // namespace tally::recsys
