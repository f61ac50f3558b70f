#pragma once

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

/// The loss of training: a mean over the target positions of a batch, as a sum over its shards. A negative that is the
/// position's target takes no part in sampled softmax; in binary cross-entropy it counts as drawn.
class TrainingLoss {
 public:
  /// Cross-entropy over all items.
  TrainingLoss() = default;
  /// `histories` as in NegativeSampler. Throws ConfigError for options that do not go together.
  TrainingLoss(const LossOptions& options, std::vector<std::span<const std::int32_t>> histories, std::int64_t items);

  const LossOptions& options() const { return options_; }
  bool needs_all_items() const { return options_.kind == LossOptions::Kind::cross_entropy; }

  /// The shard's negatives in the step of this key; undefined when the loss is over all items.
  Tensor draw_negatives(const TrainingShard& shard, RngKey key) const;
  /// scale * the sum over the shard's targets of hidden states [T, D] against a candidate table, whose rows are all
  /// items or those prepared.
  Var operator()(const Var& hidden, const Var& table, const TrainingShard& shard, const Tensor& negatives,
                 const BatchItems& prepared, double scale) const;

 private:
  Var binary(const Var& hidden, const Var& table, const TrainingShard& shard, const Tensor& negatives,
             const BatchItems& prepared, double scale) const;
  Var softmax(const Var& hidden, const Var& table, const TrainingShard& shard, const Tensor& negatives,
              const BatchItems& prepared, double scale) const;
  Tensor log_probabilities(const Tensor& items) const;

  LossOptions options_;
  std::shared_ptr<const NegativeSampler> sampler_;
  double positive_power_ = 1;
};

}  // namespace tally::recsys
