#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "tally/core/options/options.h"
#include "tally/core/random.h"
#include "tally/core/words.h"
#include "tally/recsys/training/batches.h"

namespace tally::recsys {

/// How negatives are drawn in training.
struct NegativeSampling {
  enum class Distribution {
    uniform,     ///< over the catalogue
    popularity,  ///< proportional to the training count to the power of `alpha`
  };
  friend constexpr auto words(Distribution) {
    using W = Word<Distribution>;
    return std::array{W{"uniform", Distribution::uniform}, W{"popularity", Distribution::popularity}};
  }
  enum class Scope {
    position,  ///< each target has its own
    sequence,  ///< shared by the targets of a sequence (the 3000 of Klenitskiy & Vasilev, RecSys 2023)
    batch,     ///< shared by all targets of a batch
  };
  friend constexpr auto words(Scope) {
    using W = Word<Scope>;
    return std::array{W{"position", Scope::position}, W{"sequence", Scope::sequence}, W{"batch", Scope::batch}};
  }
  /// What is never drawn.
  enum class Exclude {
    none,     ///< (gSASRec, LISA)
    target,   ///< of scope position: the target itself
    history,  ///< of scopes position and sequence: all training items of the user (SASRec, Klenitskiy)
  };
  friend constexpr auto words(Exclude) {
    using W = Word<Exclude>;
    return std::array{W{"none", Exclude::none}, W{"target", Exclude::target}, W{"history", Exclude::history}};
  }

  std::int64_t count = 1;  ///< K
  Distribution distribution = Distribution::uniform;
  double alpha = 1;
  Scope scope = Scope::position;
  Exclude exclude = Exclude::none;
  bool replacement = true;  ///< false: of scopes sequence and batch

  static void keys(auto& o, auto&& key) {
    key("negatives", o.count, at_least(1), "drawn for a target, or shared by several");
    key("negative_distribution", o.distribution, "over the items");
    key("negative_alpha", o.alpha, only_with("negative_distribution", o.distribution, {Distribution::popularity}),
        "power of the training count of an item");
    key("negative_scope", o.scope, "who shares negatives: `position`: each target has its own");
    key("negative_exclude", o.exclude, "what is never drawn; `history`: all training items of the user (SASRec)");
    key("negative_replacement", o.replacement,
        "`false`: all different, with loss_type SSM and negative_scope sequence or batch");
  }
};

/// An alias table (Walker 1977, Vose 1991): draws from a discrete distribution in constant time.
class AliasTable {
 public:
  AliasTable() = default;
  /// Weights are finite, not negative, and not all 0. Throws ValueError.
  explicit AliasTable(std::span<const double> weights);

  /// The index that two random words stand for.
  std::int32_t at(std::uint32_t first, std::uint32_t second) const {
    const auto column = static_cast<std::size_t>(std::uint64_t{first} * threshold_.size() >> 32);
    return second < threshold_[column] ? static_cast<std::int32_t>(column) : alias_[column];
  }
  bool empty() const { return threshold_.empty(); }

 private:
  std::vector<std::uint64_t> threshold_;  // of 2^32: the second word stays in its column below it
  std::vector<std::int32_t> alias_;
};

/// Draws the negatives of training steps. A draw is a function of the step's key, the row in the batch (of the
/// position, or of the sequence's first) and the place among the K: the same bits whatever shards and threads.
class NegativeSampler {
 public:
  /// `histories` are the users' training items, counted for popularity and excluded by Exclude::history; they must
  /// outlive this. Throws ConfigError for options that do not go together, and for more negatives without replacement
  /// than there are items to draw.
  NegativeSampler(const NegativeSampling& sampling, std::vector<std::span<const std::int32_t>> histories,
                  std::int64_t items);

  /// i32 [T, K] for scope position: the negatives of each row of the shard, 0 in rows whose loss is not taken;
  /// [sequences, K] for scope sequence; [K] for scope batch, the same for every shard. `key` is that of the step.
  /// Throws ValueError naming a user who has every item that could be drawn.
  Tensor draw(const TrainingShard& shard, RngKey key) const;

  /// f64 [items]: log probability of drawing each item, without exclusions; -infinity for one that cannot be.
  const Tensor& log_probabilities() const { return log_probabilities_; }
  const NegativeSampling& sampling() const { return sampling_; }
  std::int64_t items() const { return items_; }

 private:
  class Draws;

  double weight(std::int64_t item) const { return weights_.empty() ? 1 : weights_[static_cast<std::size_t>(item)]; }

  NegativeSampling sampling_;
  std::vector<std::span<const std::int32_t>> histories_;
  std::int64_t items_;
  std::int64_t drawable_ = 0;    // items of a weight above 0
  std::vector<double> weights_;  // of popularity
  AliasTable alias_;
  Tensor log_probabilities_;
};

}  // namespace tally::recsys
