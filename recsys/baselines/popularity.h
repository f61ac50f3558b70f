#pragma once

#include <string>

#include "tally/core/tensor.h"
#include "tally/recsys/data/sequences.h"
#include "tally/recsys/data/split.h"

namespace tally::recsys {

/// Scores an item by how often it occurs in the training part, whatever the history: the first baseline of every table.
class Popularity {
 public:
  explicit Popularity(const Split& split);

  std::string name() const { return "popularity"; }
  std::int64_t num_items() const { return scores_.numel(); }
  /// f32 [N, items]: the counts, exact below 2^24.
  Tensor score(const Sequences& histories) const;

 private:
  Tensor scores_;  // [items]
};

}  // namespace tally::recsys
