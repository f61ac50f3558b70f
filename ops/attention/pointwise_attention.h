#pragma once

#include <array>

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"
#include "tally/core/words.h"
#include "tally/ops/attention/softmax_attention.h"

namespace tally::ops {

/// What the sum of a row is divided by.
enum class PointwiseNormalizer {
  visible,  ///< the number of rows that it sees
  window,   ///< a constant, such as the longest length, whatever the row sees
};
constexpr auto words(PointwiseNormalizer) {
  using W = Word<PointwiseNormalizer>;
  return std::array{W{"visible", PointwiseNormalizer::visible}, W{"window", PointwiseNormalizer::window}};
}

struct PointwiseAttentionOptions {
  std::int64_t heads = 1;
  AttentionMask mask = AttentionMask::causal;
  PointwiseNormalizer normalizer = PointwiseNormalizer::visible;
  std::int64_t window = 0;  ///< the constant of PointwiseNormalizer::window; 0 otherwise
  double scale = 0;         ///< of scores; 0 for 1 / sqrt(width of a head)
};

/// HSTU's pointwise attention (Zhai et al., arXiv 2402.17152) over packed sequences, without its bias of relative
/// positions and times: output row i of a head is sum_j silu(scale <q_i, k_j>) v_j / n over the visible keys j of i's
/// sequence. There is no softmax: how much a row finds is left in its size. Time O(n^2), but no matrix of scores: the
/// tiles of softmax_attention.
///
/// q, k [T, heads * d] f32 or f64, v [T, heads * e] of the same type, head h in columns [h d, (h + 1) d); rows may lie
/// any distance apart. Returns [T, heads * e]. Released code divides by the length that batches are padded to; here no
/// output depends on other sequences. Keeps q, k and v; backward computes scores again. Throws ShapeError, DTypeError;
/// ValueError for a scale that is not finite, for a window below 1 where it divides, and one where it does not.
Var pointwise_attention(const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                        const PointwiseAttentionOptions& options = {});

}  // namespace tally::ops
