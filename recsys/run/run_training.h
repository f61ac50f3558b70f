#pragma once

#include "tally/recsys/config/config.h"
#include "tally/recsys/training/loss.h"

namespace tally::recsys {

/// What a config says of the loss, for these data.
std::shared_ptr<const Loss> make_loss(const TrainConfig& config, const LossData& data);
/// What a config says of samples and batches, for a model of this window that reads so many events before it.
TrainingBatches::Options batch_options(const TrainConfig& config, std::int64_t window, std::int64_t events_before = 0);

}  // namespace tally::recsys
