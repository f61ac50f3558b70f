#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tally/core/offsets.h"
#include "tally/core/tensor.h"
#include "tally/recsys/data/split.h"

namespace tally::recsys {

/// Items alone, packed as Sequences has them.
struct PackedItems {
  Tensor items;     ///< i32 [T]; undefined where nothing is known of them
  Offsets offsets;  ///< [N + 1]
};

/// Packed item sequences, what a recommender eats: sequence i is items[offsets.at(i), offsets.at(i + 1)), oldest first.
struct Sequences {
  Tensor items = {};     ///< i32 [T] item indices
  Offsets offsets = {};  ///< [N + 1]
  Tensor users = {};     ///< i32 [N] user indices, or undefined for users that no data set knows
  Tensor times = {};     ///< f64 [T] when each event was, in the data's unit; undefined where the data have no times
  /// What came before each sequence, as far as a model asks for it (SequenceModel::events_before); may be undefined.
  PackedItems before = {};

  /// Throws IndexError unless every item lies in [0, num_items).
  static Sequences from(const std::vector<std::vector<std::int32_t>>& sequences, std::int64_t num_items);

  std::int64_t count() const { return offsets.count(); }
  std::span<const std::int32_t> sequence(std::int64_t i) const {
    return items.span<std::int32_t>().subspan(static_cast<std::size_t>(offsets.at(i)),
                                              static_cast<std::size_t>(offsets.length(i)));
  }
  std::span<const double> times_of(std::int64_t i) const {
    if (!times.defined()) return {};
    return times.span<double>().subspan(static_cast<std::size_t>(offsets.at(i)),
                                        static_cast<std::size_t>(offsets.length(i)));
  }
  /// Sequences [begin, end); items and times are shared, as are those before.
  Sequences slice(std::int64_t begin, std::int64_t end) const;
};

/// Packs the last `window` events of each history, oldest first; 0 means all of them. `times` are as many and as long,
/// or none. Throws ShapeError when they are not.
Sequences pack(std::span<const std::span<const std::int32_t>> histories,
               std::span<const std::span<const double>> times = {}, std::int64_t window = 0);

/// All sequences, those of the first part first. Users, times and what came before are kept when every
/// part has them.
Sequences concatenate(std::span<const Sequences> parts);

/// The whole histories of targets, packed. A model with a window takes the end of each.
Sequences pack_histories(const Split& split, std::span<const Target> targets);

}  // namespace tally::recsys
