#pragma once

#include <functional>
#include <memory>
#include <string>

#include "tally/core/words.h"
#include "tally/recsys/models/sequence_model.h"
#include "tally/recsys/training/negatives.h"

namespace tally::recsys {

/// Where the cross-entropy over the item table is computed.
enum class LossStage {
  automatic,  ///< with the shard while the table's gradient is small, else with the batch
  shard,      ///< on each shard's own tape: logits stay in the core's cache, a table gradient per shard
  batch,      ///< once for the whole batch, parallel inside: one table gradient
};

struct LossOptions {
  enum class Kind {
    cross_entropy,         ///< over all items
    binary_cross_entropy,  ///< of the target and sampled negatives
    sampled_softmax,       ///< cross-entropy over the target and sampled negatives
  };
  /// How the binary cross-entropies l(target), l(negative 1) ... l(negative K) of a position become its loss.
  enum class Average {
    none,       ///< their sum (SASRec)
    samples,    ///< their mean (gSASRec)
    negatives,  ///< l(target) + the mean over negatives (LISA)
  };
  friend constexpr auto words(Average) {
    using W = Word<Average>;
    return std::array{W{"none", Average::none}, W{"samples", Average::samples}, W{"negatives", Average::negatives}};
  }

  Kind kind = Kind::cross_entropy;
  LossStage stage = LossStage::automatic;
  NegativeSampling negatives = {};  ///< of the sampled losses
  Average average = Average::none;  ///< of binary cross-entropy
  double gbce_calibration = 0;      ///< t of gBCE (arXiv 2308.07192) in [0, 1], for uniform negatives; 0: plain BCE
  /// Of sampled softmax: log q of an item's draw is taken from its score, for targets as for negatives, which corrects
  /// for the bias of popular negatives (Jean et al. 2015, arXiv 1412.2007).
  bool log_q = false;

  /// "cross-entropy over all items", "binary cross-entropy, 1 uniform negative for each position".
  std::string description() const;
};

/// What a loss may know of the training data.
struct LossData {
  std::vector<std::span<const std::int32_t>> histories;  ///< of the users, as in NegativeSampler
  std::int64_t items = 0;
};

/// What a loss is taken of: the rows of a shard, or of a whole batch.
struct LossRows {
  Var hidden;                  ///< [T, D] hidden state after each item
  Var table;                   ///< [items, D], or [batch_items.count(), D]: what scores are inner products with
  const TrainingShard& shard;  ///< the inputs, and i32 [T] targets, of which those of -1 count nothing
  Tensor negatives;            ///< as draw_negatives() gave them
  const BatchItems& batch_items;
  double scale;  ///< 1 / the targets of the whole batch

  /// Rows of `table` that belong to item indices, i32 of their shape; -1 stays -1.
  Tensor table_rows(const Tensor& items) const;
  /// Those of `hidden` that count, and the rows of `table` that are their targets: i64 of one length.
  struct Counted {
    Tensor rows, targets;
  };
  Counted counted() const;
};

/// A loss over the target positions of a batch. Implement it for a loss of one's own, or give a function to
/// loss_function().
class Loss {
 public:
  virtual ~Loss() = default;

  /// For the console: "cross-entropy over all items".
  virtual std::string description() const = 0;
  /// Are all items scored? Else only those that a batch's inputs, targets and negatives name need a row in the table.
  virtual bool needs_all_items() const { return true; }
  /// Is it computed once for the whole batch, whose rows are then one shard? Else it is a sum over shards, each on its
  /// own tape and core. Of a table [items, width].
  virtual bool whole_batch([[maybe_unused]] std::int64_t items, [[maybe_unused]] std::int64_t width) const {
    return false;
  }
  /// Item indices beside inputs and targets that the loss needs, i32 of any shape, or undefined: a function of the
  /// shard and the step's key. Not for losses of the whole batch.
  virtual Tensor draw_negatives([[maybe_unused]] const TrainingShard& shard, [[maybe_unused]] RngKey key) const {
    return {};
  }
  /// A scalar: rows.scale * the sum over the targets of these rows.
  virtual Var operator()(const LossRows& rows) const = 0;
};

/// A loss over all items, shard by shard, that is computed by a function.
std::shared_ptr<const Loss> loss_function(std::string description, std::function<Var(const LossRows&)> function);

/// The losses of the tree. A negative that is the position's target takes no part in sampled softmax; in binary
/// cross-entropy it counts as drawn.
class TrainingLoss final : public Loss {
 public:
  /// Cross-entropy over all items.
  TrainingLoss() = default;
  /// Throws ConfigError for options that do not go together.
  TrainingLoss(const LossOptions& options, LossData data);

  const LossOptions& options() const { return options_; }

  std::string description() const override { return options_.description(); }
  bool needs_all_items() const override { return options_.kind == LossOptions::Kind::cross_entropy; }
  bool whole_batch(std::int64_t items, std::int64_t width) const override;
  Tensor draw_negatives(const TrainingShard& shard, RngKey key) const override;
  Var operator()(const LossRows& rows) const override;

 private:
  Var binary(const LossRows& rows) const;
  Var softmax(const LossRows& rows) const;
  Tensor log_probabilities(const Tensor& items) const;

  LossOptions options_;
  std::shared_ptr<const NegativeSampler> sampler_;
  double positive_power_ = 1;
};

}  // namespace tally::recsys
