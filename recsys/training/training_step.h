#pragma once

#include "tally/autograd/stages.h"
#include "tally/recsys/models/sequence_model.h"
#include "tally/recsys/training/loss.h"

namespace tally::recsys {

/// The mean loss over all targets of the batch (and the mean over its rows of the model's auxiliary loss), and its
/// gradients. `key` is that of the step: every dropout mask and every negative is drawn from it. Buffer updates of the
/// model are applied before it returns. `configure` sees every tape before it records.
StageResult training_step(const SequenceModel& model, const TrainingBatch& batch, RngKey key,
                          const TrainingLoss& loss = {}, const std::function<void(Tape&)>& configure = {});

}  // namespace tally::recsys
