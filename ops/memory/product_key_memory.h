#pragma once

#include "tally/core/words.h"
#include "tally/ops/memory/product_keys.h"

namespace tally::ops {

/// What chosen scores become: without it no gradient would reach queries and keys.
enum class MemoryWeights {
  softmax,         ///< over a head's k scores
  scaled_softmax,  ///< k times that: rows keep about their size, however many are chosen
  sigmoid,         ///< each score for itself
};
constexpr auto words(MemoryWeights) {
  using W = Word<MemoryWeights>;
  return std::array{W{"softmax", MemoryWeights::softmax}, W{"scaled_softmax", MemoryWeights::scaled_softmax},
                    W{"sigmoid", MemoryWeights::sigmoid}};
}

/// How what was read is gated by the row that asked.
enum class MemoryGate {
  none,
  scalar,  ///< sigmoid of one number a row
  swilu,   ///< silu of as many numbers as the row is wide (Berges et al., arXiv 2412.09764)
};
constexpr auto words(MemoryGate) {
  using W = Word<MemoryGate>;
  return std::array{W{"none", MemoryGate::none}, W{"scalar", MemoryGate::scalar}, W{"swilu", MemoryGate::swilu}};
}

enum class MemoryOutput {
  pooled,  ///< the weighted rows of all heads, summed: [T, D]
  rows,    ///< each by itself, head after head: [T, heads * k, D]
};

struct ProductKeyMemoryOptions {
  std::int64_t heads = 1;
  std::int64_t slots = 32;  ///< k
  MemoryWeights weights = MemoryWeights::softmax;
  MemoryGate gate = MemoryGate::none;
  MemoryOutput output = MemoryOutput::pooled;
};

struct ProductKeyMemoryResult {
  Var output;
  Var weights;   ///< [T, heads, k]: for statistics of use, and losses on them
  Tensor slots;  ///< [T, heads, k] i64
};

/// Product-key memory (Lample et al., arXiv 1907.05242): rows of a large table of values, chosen by product_keys() and
/// weighted by their scores.
///
/// queries, keys as product_keys() has them   values [n^2, D], shared by heads   gate logits: absent for none, [T, 1]
/// for scalar, [T, D] for swilu; pooled output only. The values' gradient is a RowGrad of the rows that were chosen.
/// Keeps its inputs, slots, weights and, with a gate, what was read. Throws what product_keys() throws; ShapeError for
/// values or a gate of other shapes, DTypeError; ValueError for a gate where there should be none, none where there
/// should be one, or a gate of separate rows.
ProductKeyMemoryResult product_key_memory(const Var& queries, const Var& keys, const Var& values, const Var& gate,
                                          const ProductKeyMemoryOptions& options = {});

}  // namespace tally::ops
