#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tally/core/random.h"
#include "tally/core/words.h"
#include "tally/recsys/models/window.h"

namespace tally::recsys {

/// A part of a batch that one core works on: packed inputs, the item that follows each, and where its rows stand in the
/// batch.
struct TrainingShard {
  Sequences inputs;  ///< with the users' indices, and times where the data have them
  Tensor targets;    ///< i32 [T]: the next item; -1 for a row whose loss is not taken
  std::int64_t first_row = 0;
  bool wide = false;  ///< one sequence above the budget: it runs alone, with parallel ops inside
};

struct TrainingBatch {
  std::vector<TrainingShard> shards;
  std::int64_t rows = 0;     ///< in all shards
  std::int64_t targets = 0;  ///< rows whose loss is taken
};

/// How training samples are cut from a user's training items. A sample's inputs are consecutive items, and the target
/// of each the item that follows it.
enum class TrainingSamples {
  shifted,  ///< one a user: the last `window` inputs; older items are never trained (SASRec, Klenitskiy)
  prefix,   ///< the last `window` inputs of prefixes of the sequence, the loss at the last alone (RecBole)
  window,   ///< windows of `window` inputs every `stride`, from the end to the first item (LRURec)
  /// Pieces of items from the end, without overlap; an oldest rest of up to 1.1 times a piece's length stays in one
  /// (LISA). The item that begins a piece is nobody's target.
  pieces,
};
constexpr auto words(TrainingSamples) {
  using W = Word<TrainingSamples>;
  return std::array{W{"shifted", TrainingSamples::shifted}, W{"prefix", TrainingSamples::prefix},
                    W{"window", TrainingSamples::window}, W{"pieces", TrainingSamples::pieces}};
}

/// "shifted", "prefix", "window", "pieces".
const char* name_of(TrainingSamples samples);

/// Cuts the training part of each user's sequence into samples, and the samples, in an order drawn by (key, epoch),
/// into batches: every sample once an epoch. A batch is `batch_size` samples, cut evenly into shards of whole sequences
/// up to `shard_tokens` rows: into a multiple of 16 where that leaves shards of 512 rows, so that 16 cores share it.
/// Cuts depend on sizes only, and the order of a batch's rows on the lengths of its samples alone: another budget
/// changes no more than the rounding of sums. Users with fewer than two training items have no samples.
class TrainingBatches {
 public:
  struct Options {
    std::int64_t batch_size = 128;
    std::int64_t window = 200;
    std::int64_t shard_tokens = 2048;
    TrainingSamples samples = TrainingSamples::shifted;
    /// Of prefix samples: how many of a user's prefixes are drawn each epoch; 0, or more than there are, takes all.
    std::int64_t prefixes_per_user = 0;
    /// Of window samples: inputs between the ends of two windows, at most `window`. Of pieces: items in each, at most
    /// longest_piece(window); where one item is left over, the first, it is in no sample. 0 is the largest.
    std::int64_t stride = 0;
    /// How many of the user's events before a sample come with it, at most: Sequences::before.
    std::int64_t events_before = 0;
  };

  /// `histories` are the users' training items and `times` when they were, or none; both must outlive this. Throws
  /// ShapeError when they are not as many and as long.
  TrainingBatches(std::vector<std::span<const std::int32_t>> histories, const Options& options, RngKey key,
                  std::vector<std::span<const double>> times = {});

  /// The longest piece of which a rest 1.1 times as long still has at most `window` inputs.
  static std::int64_t longest_piece(std::int64_t window) { return (10 * (window + 2) - 1) / 11; }

  /// Users with samples.
  std::int64_t users() const { return users_; }
  std::int64_t samples_per_epoch() const { return samples_per_epoch_; }
  std::int64_t targets_per_epoch() const { return targets_per_epoch_; }
  std::int64_t batches_per_epoch() const;
  TrainingBatch batch(std::int64_t epoch, std::int64_t index) const;

  const Options& options() const { return options_; }
  const std::vector<std::span<const std::int32_t>>& histories() const { return histories_; }

 private:
  /// Inputs [begin, end) of a user's items.
  struct Sample {
    std::int32_t user, begin, end;
    std::int64_t rows() const { return end - begin; }
  };

  bool draws_prefixes() const { return options_.samples == TrainingSamples::prefix && options_.prefixes_per_user > 0; }
  /// A shard for each of 16 cores, or for each of several rounds of them.
  static constexpr std::int64_t kShardsOfARound = 16;
  static constexpr std::int64_t kShortestShard = 512;

  /// Into how many shards so many rows are cut, at least.
  std::int64_t shards_of(std::int64_t rows) const;
  /// A batch's samples in another order, in which any run of them has about its share of the rows.
  static std::vector<Sample> spread(std::vector<Sample> samples);
  /// A batch's samples, in their order, as shards.
  std::vector<std::vector<Sample>> cut(const std::vector<Sample>& samples) const;
  TrainingShard shard_of(const std::vector<Sample>& samples, std::int64_t first_row) const;
  void add_samples(std::int32_t user, std::int32_t items);
  std::vector<Sample> drawn_prefixes(std::int64_t epoch) const;
  void begin_epoch(std::int64_t epoch) const;

  std::vector<std::span<const std::int32_t>> histories_;
  std::vector<std::span<const double>> times_;  // as many, or none
  Options options_;
  RngKey key_;
  std::int64_t users_ = 0, samples_per_epoch_ = 0, targets_per_epoch_ = 0;
  mutable std::vector<Sample> samples_;  // in order of users; of the epoch below when they are drawn
  mutable std::int64_t epoch_ = -1;
  mutable std::vector<std::int64_t> order_;
};

}  // namespace tally::recsys
