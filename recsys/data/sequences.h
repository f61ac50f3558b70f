#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tally/core/offsets.h"
#include "tally/core/tensor.h"
#include "tally/recsys/data/split.h"

namespace tally::recsys {

/// Packed item sequences, what a recommender eats: sequence i is items[offsets.at(i), offsets.at(i + 1)), oldest first.
struct Sequences {
  Tensor items;     ///< i32 [T] item indices
  Offsets offsets;  ///< [N + 1]
  Tensor users;     ///< i32 [N] user indices, or undefined for users that no data set knows

  /// Throws IndexError unless every item lies in [0, num_items).
  static Sequences from(const std::vector<std::vector<std::int32_t>>& sequences, std::int64_t num_items);

  std::int64_t count() const { return offsets.count(); }
  std::span<const std::int32_t> sequence(std::int64_t i) const {
    return items.span<std::int32_t>().subspan(static_cast<std::size_t>(offsets.at(i)),
                                              static_cast<std::size_t>(offsets.length(i)));
  }
  /// Sequences [begin, end); the items are shared.
  Sequences slice(std::int64_t begin, std::int64_t end) const;
};

/// The whole histories of targets, packed. A model with a window takes the end of each.
Sequences pack_histories(const Split& split, std::span<const Target> targets);

}  // namespace tally::recsys
