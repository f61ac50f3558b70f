#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"
#include "tally/ops/attention/softmax_attention.h"

namespace tally::ops {

struct ProductAttentionOptions {
  std::int64_t heads = 1;
  AttentionMask mask = AttentionMask::causal;
  double scale = 0;  ///< of the products; 0 for 1 / sqrt(width of a head)
};

/// Attention without a softmax over packed sequences: output row i of a head is scale sum_j <q_i, k_j> v_j over the
/// visible keys j of i's sequence, weights of any sign, which do not sum to 1. Time O(T d e): chunks of 64 rows meet
/// their own by matrix products, and what came before by the sums of k_j v_j^T. LinRec's core (Liu et al., SIGIR 2023).
///
/// q, k [T, heads * d] f32 or f64, v [T, heads * e] of the same type, head h in columns [h d, (h + 1) d); rows may lie
/// any distance apart. Returns [T, heads * e]. Keeps q, k and v; backward walks forward for queries and back for keys
/// and values. Throws ShapeError, DTypeError; ValueError for a scale that is not finite.
Var product_attention(const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                      const ProductAttentionOptions& options = {});

}  // namespace tally::ops
