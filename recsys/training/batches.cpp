#include "tally/recsys/training/batches.h"

#include <algorithm>

namespace tally::recsys {

ShiftedBatches::ShiftedBatches(std::vector<std::span<const std::int32_t>> histories, const Options& options, RngKey key)
    : histories_(std::move(histories)), options_(options), key_(key) {
  check<ConfigError>(options.batch_size >= 1 && options.window >= 1 && options.shard_tokens >= 1, "batches",
                     "needs a batch size, window and shard budget of at least 1; got ", options.batch_size, ", ",
                     options.window, " and ", options.shard_tokens);
  std::erase_if(histories_, [](const auto& history) { return history.size() < 2; });
  for (auto& history : histories_) {
    const auto kept = std::min(history.size(), static_cast<std::size_t>(options.window) + 1);
    history = history.last(kept);
  }
}

std::int64_t ShiftedBatches::batches_per_epoch() const {
  return (users() + options_.batch_size - 1) / options_.batch_size;
}

std::int64_t ShiftedBatches::targets_per_epoch() const {
  std::int64_t targets = 0;
  for (const auto& history : histories_) targets += static_cast<std::int64_t>(history.size()) - 1;
  return targets;
}

TrainingBatch ShiftedBatches::batch(std::int64_t epoch, std::int64_t index) const {
  if (ordered_epoch_ != epoch) {
    order_ = random_permutation(key_.fold_in(static_cast<std::uint64_t>(epoch)), users());
    ordered_epoch_ = epoch;
  }
  const std::int64_t begin = index * options_.batch_size, end = std::min(users(), begin + options_.batch_size);
  TrainingBatch batch;
  std::vector<std::span<const std::int32_t>> inputs, targets;
  std::int64_t rows = 0;
  const auto close_shard = [&] {
    if (inputs.empty()) return;
    batch.shards.push_back(
        {pack_window(inputs), pack_window(targets).items, batch.targets, rows > options_.shard_tokens});
    batch.targets += rows;
    inputs.clear();
    targets.clear();
    rows = 0;
  };
  for (std::int64_t i = begin; i < end; ++i) {
    const auto history = histories_[static_cast<std::size_t>(order_[static_cast<std::size_t>(i)])];
    const auto length = static_cast<std::int64_t>(history.size()) - 1;
    if (rows + length > options_.shard_tokens) close_shard();
    inputs.push_back(history.first(static_cast<std::size_t>(length)));
    targets.push_back(history.last(static_cast<std::size_t>(length)));
    rows += length;
  }
  close_shard();
  return batch;
}

}  // namespace tally::recsys
