#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"

namespace tally::ops {

struct LinformerOptions {
  std::int64_t heads = 1;
  double scale = 0;  ///< of scores; 0 for 1 / sqrt(width of a head)
};

/// Bidirectional attention over a fixed number of projected keys (Linformer, Wang et al., arXiv 2006.04768): in each
/// sequence of n rows and each head, softmax(scale q (E K)^T) (F V) with E, F the first n columns of learned matrices.
/// Time and memory O(T r). There is no causal form: a projected key mixes all rows.
///
/// q, k [T, heads * d] f32 or f64, v [T, heads * e] of the same type, head h in columns [h d, (h + 1) d).
/// key_projection (E), value_projection (F) [r, L], L at least the longest sequence, shared by the heads; they may be
/// one parameter. Returns [T, heads * e]. Keeps its inputs, its output and the log-sum-exp of every row and head;
/// backward projects again. Throws ShapeError, DTypeError; ValueError for a scale that is not finite.
Var linformer_attention(const Var& q, const Var& k, const Var& v, const Var& key_projection,
                        const Var& value_projection, const Offsets& offsets, const LinformerOptions& options = {});

}  // namespace tally::ops
