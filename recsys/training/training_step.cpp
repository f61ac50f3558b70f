#include "tally/recsys/training/training_step.h"

#include <algorithm>

#include "tally/core/parallel.h"
#include "tally/ops/elementwise/elementwise.h"

namespace tally::recsys {
namespace {

/// A batch as one shard. That of a batch of one shard is shared.
TrainingShard as_one_shard(const TrainingBatch& batch) {
  if (batch.shards.size() == 1) return batch.shards[0];
  std::vector<Sequences> inputs;
  TrainingShard whole{{}, Tensor({batch.rows}, DType::i32), 0, true};
  auto* out = whole.targets.mutable_data<std::int32_t>();
  for (const TrainingShard& shard : batch.shards) {
    inputs.push_back(shard.inputs);
    const auto part = shard.targets.span<std::int32_t>();
    out = std::copy(part.begin(), part.end(), out);
  }
  whole.inputs = concatenate(inputs);
  return whole;
}

/// The items that occur in a batch as inputs, targets and negatives.
BatchItems occurring(const TrainingBatch& batch, std::span<const Tensor> negatives, std::int64_t items,
                     bool all_candidates) {
  std::vector<std::uint8_t> marks(static_cast<std::size_t>(items));
  const auto mark = [&](const Tensor& ids) {
    for (const std::int32_t item : ids.span<std::int32_t>()) {
      if (item >= 0) marks[static_cast<std::size_t>(item)] = 1;
    }
  };
  for (const TrainingShard& shard : batch.shards) {
    mark(shard.inputs.items);
    if (shard.inputs.before.items.defined()) mark(shard.inputs.before.items);
    mark(shard.targets);
  }
  for (const Tensor& drawn : negatives) {
    if (drawn.defined()) mark(drawn);
  }
  return BatchItems::marked(marks, all_candidates);
}

}  // namespace

nn::TaskStep training_step(const SequenceModel& model, const TrainingBatch& batch, RngKey key, const Loss& loss,
                           const std::function<void(Tape&)>& configure) {
  check<ValueError>(batch.targets > 0, "training_step", "needs a batch with at least one target");
  const bool batch_stage = loss.whole_batch(model.num_items(), model.width());
  const double scale = 1.0 / static_cast<double>(batch.targets);
  const auto shards = static_cast<std::int64_t>(batch.shards.size());
  const auto shard_at = [&](std::int64_t s) -> const TrainingShard& {
    return batch.shards[static_cast<std::size_t>(s)];
  };
  // A model that prepares must know all items before the first shard; else a shard draws its own.
  BatchItems items;
  std::vector<Tensor> negatives(batch.shards.size());
  if (model.prepares() && loss.needs_all_items() && model.prepares_candidates()) {
    items = BatchItems::all(model.num_items());
  } else if (model.prepares()) {
    parallel_for(shards, 1, [&](std::int64_t s, std::int64_t) {
      negatives[static_cast<std::size_t>(s)] = loss.draw_negatives(shard_at(s), key);
    });
    items = occurring(batch, negatives, model.num_items(), loss.needs_all_items());
  }
  Prepared prepared;
  std::vector<nn::BufferUpdates> updates(batch.shards.size());
  Stages stages;
  if (model.prepares()) {
    stages.prepare = [&] {
      prepared = model.prepare(items);
      return prepared.vars();
    };
  }
  stages.shards = shards;
  stages.encode = [&](std::int64_t s, std::span<const Var> values) -> ShardOutput {
    const TrainingShard& shard = shard_at(s);
    const nn::Context context{true, key, shard.first_row, &updates[static_cast<std::size_t>(s)]};
    const Prepared with = prepared.with(values);
    const Var hidden = model.encode(shard.inputs, with, context);
    Var total = model.auxiliary_loss(shard.inputs, shard.targets, with, context);
    if (total.defined()) total = total * (1.0 / static_cast<double>(batch.rows));
    if (batch_stage) return {total, {hidden}};
    const Tensor drawn = model.prepares() ? negatives[static_cast<std::size_t>(s)] : loss.draw_negatives(shard, key);
    const Var main = loss({hidden, model.candidate_table(with), shard, drawn, items, scale});
    return {total.defined() ? main + total : main, {}};
  };
  stages.wide = [&](std::int64_t s) { return shard_at(s).wide; };
  if (batch_stage) {
    stages.finish = [&](std::span<const Var> rows, std::span<const Var> values) {
      return loss({rows[0], model.candidate_table(prepared.with(values)), as_one_shard(batch), {}, items, scale});
    };
  }
  nn::TaskStep result{run_stages(stages, configure), batch.targets, batch.rows, {}};
  for (nn::BufferUpdates& posted : updates) result.updates.append(std::move(posted));
  return result;
}

}  // namespace tally::recsys
