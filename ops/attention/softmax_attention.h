#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"
#include "tally/ops/elementwise/dropout.h"

namespace tally::ops {

enum class AttentionMask {
  causal,         ///< a row sees itself and the rows before it in its sequence
  bidirectional,  ///< every row of its sequence
};

struct AttentionOptions {
  std::int64_t heads = 1;
  AttentionMask mask = AttentionMask::causal;
  std::int64_t window = 0;      ///< only keys fewer than this many rows away, itself included; 0 for no limit
  double scale = 0;             ///< of scores; 0 for 1 / sqrt(width of a head)
  DropoutOptions dropout = {};  ///< of probabilities; its rows are those of q
};

/// Softmax attention over packed sequences (Vaswani et al., arXiv 1706.03762), without ever storing a matrix of scores
/// (Dao et al., arXiv 2205.14135): output row i of a head is sum_j p_ij v_j, p_i = softmax_j(scale <q_i, k_j>) over the
/// visible keys j of i's sequence, dropped after they were normalised.
///
/// q, k [T, heads * d] f32 or f64, v [T, heads * e] of the same type, head h in columns [h d, (h + 1) d); rows may lie
/// any distance apart, so that slices of one projection need no copy. Returns [T, heads * e]. A window of w shows row i
/// the keys i - w + 1 ... i (and, bidirectional, ... i + w - 1). Dropout is keyed by place: the probability of (row,
/// head, key) is kept when the 16 bits that random_bits() draws at (key.fold_in(head), first_row + row, position of the
/// key in its sequence) are at least rate * 2^16 (rounded to the nearest). Keeps q, k, v, its output and the
/// log-sum-exp of every row and head [T, heads]; backward computes probabilities again. A non-finite score makes its
/// row NaN, and a non-finite value may reach rows before it (0 times infinity). Throws ShapeError, DTypeError;
/// ValueError for a window below 0, a scale that is not finite, a rate outside [0, 1) or rows beyond 2^32.
Var softmax_attention(const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                      const AttentionOptions& options = {});

}  // namespace tally::ops
