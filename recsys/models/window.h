#pragma once

#include <span>

#include "tally/core/words.h"
#include "tally/recsys/data/sequences.h"

namespace tally::recsys {

/// Packs histories end to end, the last `window` items of each, oldest first; 0 means all of them.
Sequences pack_window(std::span<const std::span<const std::int32_t>> histories, std::int64_t window = 0);
/// The last `window` items of each sequence, and up to `events_before` that came before those, if that is not 0.
Sequences cut_to_window(const Sequences& sequences, std::int64_t window, std::int64_t events_before = 0);

/// Which end of the window position 0 counts from. Published protocols pad, and the side they pad decides it.
enum class PositionAlignment {
  start,  ///< the oldest item of the window is position 0 (padding on the right: Klenitskiy, RecBole, HSTU)
  end,    ///< the newest item of the window has the last position (padding on the left: SASRec 2018, gSASRec, LRURec)
};
constexpr auto words(PositionAlignment) {
  using W = Word<PositionAlignment>;
  return std::array{W{"start", PositionAlignment::start}, W{"end", PositionAlignment::end}};
}

/// Position of every row in [0, window), i32 [T]. Throws ShapeError for a sequence longer than the window.
Tensor positions(const Offsets& offsets, std::int64_t window, PositionAlignment alignment);

}  // namespace tally::recsys
