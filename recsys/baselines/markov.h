#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tally/core/tensor.h"
#include "tally/recsys/data/sequences.h"
#include "tally/recsys/data/split.h"

namespace tally::recsys {

/// First-order Markov chain: scores item j by how often j directly followed the last item of the history in the
/// training part, and among equal counts by popularity there. Counting is all it does, and it beats many published
/// neural rows.
///
/// The textbook score, count + 1e-7 popularity, is not distinct in f32 (at count 1 the spacing is 1.2e-7), so the same
/// order is encoded otherwise: the whole part of a score is the count, and its fraction the rank of the item's
/// popularity among the items of that count (for count 0: popularity / (largest popularity + 1)). An item with C
/// transitions away has at most C / c followers with count c, so the fractions stay distinct below 2^22 transitions
/// from one item.
class Markov {
 public:
  explicit Markov(const Split& split);

  std::string name() const { return "markov"; }
  std::int64_t num_items() const { return popularity_.numel(); }
  /// f32 [N, items]; an empty history is scored by popularity.
  Tensor score(const Sequences& histories) const;

 private:
  Tensor popularity_;                    // [items] scores of items that never followed, below 1
  std::vector<std::int64_t> offsets_;    // [items + 1]
  std::vector<std::int32_t> followers_;  // item that followed, by the item it followed
  std::vector<float> scores_;            // its score
};

}  // namespace tally::recsys
