#pragma once

#include "tally/autograd/stages.h"
#include "tally/recsys/models/sequence_model.h"
#include "tally/recsys/training/batches.h"

namespace tally::recsys {

/// Where the loss over the item table is computed.
enum class LossStage {
  automatic,  ///< with the shard while the table's gradient is small, else with the batch
  shard,      ///< on each shard's own tape: logits stay in the core's cache, a table gradient per shard
  batch,      ///< once for the whole batch, parallel inside: one table gradient
};

/// Mean cross-entropy of the next item over the whole item table, and its gradients, over all targets of the batch.
/// `key` is that of the step: every dropout mask is drawn from it. Buffer updates of the model are applied before it
/// returns. `configure` sees every tape before it records.
StageResult training_step(const SequenceModel& model, const TrainingBatch& batch, RngKey key,
                          LossStage stage = LossStage::automatic, const std::function<void(Tape&)>& configure = {});

}  // namespace tally::recsys
