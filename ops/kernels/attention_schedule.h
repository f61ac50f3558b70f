#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tally/core/parallel.h"
#include "tally/ops/kernels/softmax_attention.h"

// How the rows of attentions without a matrix of scores are shared out: into tasks, and into blocks.

namespace tally::kernels::tiling {

// Tile sizes are constants of the lengths and widths, never of the machine: they decide the order of sums.
// Rows of a block, at most. Products of small blocks are nearly as fast as those of large ones and waste less of a
// causal tile; in long sequences that waste is small.
inline constexpr std::int64_t kBlock = 48;
inline constexpr std::int64_t kLongBlock = 96;
inline constexpr std::int64_t kRowRoom = 128;  // kLongBlock rounded up for the kernels of tiles
// A product up to this many multiplications goes through BLAS without packing, faster than a larger one.
inline constexpr std::int64_t kProductLimit = 1000000;
inline constexpr std::int64_t kMaxKeyTile = 256;
// Keys that a block of queries meets at once in backward, where two tiles of scores are to stay in the first-level
// cache.
inline constexpr std::int64_t kPairedKeys = 192;
// A sequence is parallel inside when it is longer than this and its scores are more than a share of all.
inline constexpr std::int64_t kLongSequence = 512;
inline constexpr std::int64_t kLongShare = 64;
// Scores of one task over short sequences, at least.
inline constexpr std::int64_t kTaskScores = 1 << 14;

constexpr std::int64_t round_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

inline std::int64_t block_limit(std::int64_t length) {
  return length > kLongSequence ? kLongBlock : std::min(length, kBlock);
}

/// Rows of the blocks that a sequence is cut into: nearly equal, so that little of a causal tile is wasted. A multiple
/// of what a mask draws at once, unless there is one block.
inline std::int64_t block_rows(std::int64_t length) {
  const std::int64_t blocks = block_count(length, block_limit(length));
  return blocks <= 1 ? std::max<std::int64_t>(length, 1) : round_up(block_count(length, blocks), kMaskDraw);
}

/// One head of one sequence.
struct Head {
  std::int64_t row, length, head;
};

/// How the sequences of a call are shared out: blocks of whole sequences that run in parallel, and long sequences that
/// run one after the other, each parallel inside. Decided by lengths only.
class Schedule {
 public:
  explicit Schedule(const AttentionPlan& plan) : plan_(plan) {
    const auto count = static_cast<std::int64_t>(plan.bounds.size()) - 1;
    double all = 0;
    for (std::int64_t i = 0; i < count; ++i) all += static_cast<double>(length(i)) * static_cast<double>(length(i));
    std::int64_t scores = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const auto square = static_cast<double>(length(i)) * static_cast<double>(length(i));
      if (length(i) > kLongSequence && square * kLongShare > all) {
        long_.push_back(i);
        continue;
      }
      if (scores == 0) blocks_.emplace_back();
      blocks_.back().push_back(i);
      scores += (length(i) + 8) * (length(i) + 8) * plan.heads;
      if (scores >= kTaskScores) scores = 0;
    }
  }

  /// Calls make(longest) for the buffers of a block of sequences, then body(head, buffers) for each of their heads.
  template <class Make, class Body>
  void over_blocks(Make&& make, Body&& body) const {
    parallel_for(static_cast<std::int64_t>(blocks_.size()), 1, [&](std::int64_t block, std::int64_t) {
      const std::vector<std::int64_t>& sequences = blocks_[static_cast<std::size_t>(block)];
      std::int64_t longest = 0;
      for (const std::int64_t i : sequences) longest = std::max(longest, length(i));
      auto buffers = make(longest);
      for (const std::int64_t i : sequences) {
        for (std::int64_t h = 0; h < plan_.heads && length(i) > 0; ++h) body(Head{row(i), length(i), h}, buffers);
      }
    });
  }

  /// Calls body(row, length) for each long sequence.
  template <class Body>
  void over_long(Body&& body) const {
    for (const std::int64_t i : long_) body(row(i), length(i));
  }

 private:
  std::int64_t row(std::int64_t i) const { return plan_.bounds[static_cast<std::size_t>(i)]; }
  std::int64_t length(std::int64_t i) const { return plan_.bounds[static_cast<std::size_t>(i + 1)] - row(i); }

  const AttentionPlan& plan_;
  std::vector<std::vector<std::int64_t>> blocks_;
  std::vector<std::int64_t> long_;
};

}  // namespace tally::kernels::tiling
