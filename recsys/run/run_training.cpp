#include "tally/recsys/run/run_training.h"

namespace tally::recsys {

std::shared_ptr<const Loss> make_loss(const TrainConfig& config, const LossData& data) {
  return config.loss.row().make(config.loss.options, data);
}

TrainingBatches::Options batch_options(const TrainConfig& config, std::int64_t window, std::int64_t events_before) {
  return {.batch_size = config.train_batch_size,
          .window = window,
          .shard_tokens = config.shard_tokens,
          .samples = config.train_samples,
          .prefixes_per_user = config.prefixes_per_user,
          .stride = config.window_stride,
          .events_before = events_before};
}

}  // namespace tally::recsys
