#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"
#include "tally/ops/attention/softmax_attention.h"

namespace tally::ops {

struct SinkhornAttentionOptions {
  std::int64_t heads = 1;
  AttentionMask mask = AttentionMask::causal;
  std::int64_t block = 64;      ///< rows of a block
  std::int64_t iterations = 8;  ///< of normalising columns, then rows
  double temperature = 0.75;    ///< divides the logits
  double scale = 0;             ///< of scores; 0 for 1 / sqrt(width of a head)
};

/// Number of blocks of all sequences: rows of the sort logits.
std::int64_t sinkhorn_blocks(const Offsets& offsets, std::int64_t block);

/// Attention to one's own block and to a softly permuted one (Sparse Sinkhorn Attention, Tay et al., arXiv 2002.11296).
/// A sequence is cut into blocks of rows, the last one possibly shorter. P = exp(Sinkhorn(logits / temperature)), rows
/// normalised first and last; row i of P mixes the blocks of keys and of values, row by row, into the sorted block of
/// block i. A row that the last block lacks is mixed from the blocks that have it, their weights brought to a sum of 1;
/// where none has it there is no such row. A query sees its own block and its sorted block, in one softmax.
///
/// Causal: within its block a row sees as far as itself, P has earlier blocks only (the first block has no sorted
/// one), and a column is normalised over the rows so far, so that later logits do not reach earlier rows. A row of
/// logits must then depend on nothing after its block's first row, which is the caller's part.
///
/// q, k [T, heads * d] f32 or f64, v [T, heads * e] of the same type, head h in columns [h d, (h + 1) d). sort_logits
/// [sinkhorn_blocks(), L]: row i of a sequence's blocks against its blocks j = 0, 1, ...; L at least the blocks of the
/// longest sequence, further columns are ignored; shared by the heads. Returns [T, heads * e]. With n blocks of b rows
/// time is O(T b (d + e) + n T (d + e)): mixing is quadratic in the number of blocks, though not in that of rows. Keeps
/// its inputs, its output and the log-sum-exp of every row and head; backward sorts again. Throws ShapeError,
/// DTypeError; ValueError for a block below 1, iterations below 0, or a temperature or scale that is not finite
/// (temperature above 0).
Var sinkhorn_attention(const Var& q, const Var& k, const Var& v, const Var& sort_logits, const Offsets& offsets,
                       const SinkhornAttentionOptions& options = {});

}  // namespace tally::ops
