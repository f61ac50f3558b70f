#pragma once

#include "tally/nn/training/task.h"
#include "tally/recsys/models/sequence_model.h"
#include "tally/recsys/training/loss.h"

namespace tally::recsys {

/// The loss over all targets of the batch (and the mean over its rows of the model's auxiliary loss), its gradients,
/// and the changes to the model's buffers, which whoever takes the step applies. `key` is that of the step: every
/// dropout mask and every negative is drawn from it. `configure` sees every tape before it records.
nn::TaskStep training_step(const SequenceModel& model, const TrainingBatch& batch, RngKey key,
                           const Loss& loss = TrainingLoss(), const std::function<void(Tape&)>& configure = {});

}  // namespace tally::recsys
