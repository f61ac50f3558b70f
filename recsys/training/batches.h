#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tally/core/random.h"
#include "tally/recsys/models/window.h"

namespace tally::recsys {

/// A part of a batch that one core works on: packed inputs, the item that follows each, and where its rows stand in the
/// batch.
struct TrainingShard {
  Sequences inputs;
  Tensor targets;  ///< i32 [T]: the next item
  std::int64_t first_row = 0;
  bool wide = false;  ///< one sequence above the budget: it runs alone, with parallel ops inside
};

struct TrainingBatch {
  std::vector<TrainingShard> shards;
  std::int64_t targets = 0;  ///< target positions in all shards
};

/// Cuts the training part of each user's sequence into batches: every user with at least two training items once an
/// epoch, its last `window + 1` items shifted by one, in an order drawn by (key, epoch). A batch is `batch_size` users,
/// cut into shards of whole sequences up to `shard_tokens` rows. Cuts depend on sizes only.
class ShiftedBatches {
 public:
  struct Options {
    std::int64_t batch_size = 128;
    std::int64_t window = 200;
    std::int64_t shard_tokens = 2048;
  };

  /// `histories` are the users' training items; they must outlive this.
  ShiftedBatches(std::vector<std::span<const std::int32_t>> histories, const Options& options, RngKey key);

  std::int64_t users() const { return static_cast<std::int64_t>(histories_.size()); }
  std::int64_t batches_per_epoch() const;
  std::int64_t targets_per_epoch() const;
  TrainingBatch batch(std::int64_t epoch, std::int64_t index) const;

 private:
  std::vector<std::span<const std::int32_t>> histories_;
  Options options_;
  RngKey key_;
  mutable std::int64_t ordered_epoch_ = -1;
  mutable std::vector<std::int64_t> order_;
};

}  // namespace tally::recsys
