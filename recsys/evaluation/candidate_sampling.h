#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tally/core/random.h"
#include "tally/core/words.h"
#include "tally/recsys/data/split.h"

namespace tally::recsys {

/// How the negatives of a sampled evaluation are drawn. Sampled metrics do not order models as full ones do (Krichene &
/// Rendle, KDD 2020): they are here to reproduce published figures.
struct CandidateSampling {
  enum class Distribution {
    uniform,     ///< over the items of the data set
    popularity,  ///< proportional to an item's count in the training part
  };
  /// What is never drawn for a user.
  enum class Exclude {
    training,  ///< the items trained on; the target itself may come (the evaluator of SASRec, 2018)
    history,   ///< the items before the target, and the target
    all,       ///< every item of the user
  };
  friend constexpr auto words(Exclude) {
    using W = Word<Exclude>;
    return std::array{W{"all", Exclude::all}, W{"history", Exclude::history}, W{"training", Exclude::training}};
  }

  std::int64_t count = 100;
  Distribution distribution = Distribution::uniform;
  Exclude exclude = Exclude::all;
  bool replacement = true;
  std::uint64_t seed = 0;

  /// "uni100", "pop100": what metrics are labelled with.
  std::string label() const;
  /// "100 uniform negatives with replacement, outside the user's training items, seed 0".
  std::string description() const;
};

/// Draws negatives. A draw is a function of seed, part, user and place alone: the same at every validation, for every
/// model and any number of threads.
class CandidateSampler {
 public:
  /// The split must outlive it. Throws ValueError for a count below 1.
  CandidateSampler(const Split& split, Part part, const CandidateSampling& sampling);

  /// The `count` negatives of a target, in the order drawn. Throws ValueError naming a user for whom they cannot be
  /// drawn: for whom no item is left, or without replacement fewer than `count`.
  std::vector<std::int32_t> draw(const Target& target) const;
  /// Throws what draw() would throw for this target, without drawing.
  void check_target(const Target& target) const;

 private:
  void check_enough(const Target& target, std::int64_t drawable) const;
  std::int64_t weight(std::int32_t item) const;
  std::vector<std::int32_t> excluded(const Target& target) const;
  std::vector<std::int32_t> draw_by_rejection(std::span<const std::int32_t> excluded, std::uint64_t user) const;
  std::vector<std::int32_t> draw_from_rest(std::span<const std::int32_t> excluded, const Target& target) const;

  const Split& split_;
  Part part_;
  CandidateSampling sampling_;
  RngKey key_;
  std::int64_t drawable_items_ = 0;            // items of a probability above 0
  std::vector<std::int64_t> training_counts_;  // popularity only
  std::vector<std::int64_t> cumulative_;       // popularity only: training_counts_ summed up
};

/// Throws ValueError naming the first of these targets for which the negatives cannot be drawn: a label such as uni100
/// is true of every user or is not printed. To be called before anything is trained.
void check_candidates(const Split& split, Part part, std::span<const Target> targets,
                      const CandidateSampling& sampling);

}  // namespace tally::recsys
