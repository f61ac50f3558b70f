#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"

namespace tally::ops {

struct DispatcherOptions {
  std::int64_t heads = 1;
  double scale = 0;  ///< of both steps' scores; 0 for 1 / sqrt(width of a head) of each step
};

/// Projected rows of a dispatcher layer, all f32 or all f64. Head h has columns [h d, (h + 1) d), and so for e, r, o.
struct DispatcherInputs {
  Var expert_queries;    ///< [k, heads * d] of experts that all sequences share, or [N, k, heads * d]: P W_Q1
  Var keys;              ///< [T, heads * d]: X W_K1
  Var values;            ///< [T, heads * e]: X W_V1
  Var queries;           ///< [T, heads * r]: X W_Q2
  Var key_projection;    ///< [heads * e, heads * r]: W_K2; or [heads, e, r], where a head reads its own experts only
  Var value_projection;  ///< [heads * e, heads * o]: W_V2; or [heads, e, o], as key_projection
};

struct DispatcherOutput {
  Var output;   ///< [T, heads * o]
  Var experts;  ///< [N, k, heads * e]: what the experts gathered, P' before W_K2 and W_V2; 0 of an empty sequence
};

/// Dispatcher attention over packed sequences (the LDA layer of ELASTIC, arXiv 2408.09380; docs/elastic.md): in each
/// sequence, k experts gather its rows and the rows read the experts,
///
///   P'  = softmax_over_positions(scale (P W_Q1) (X W_K1)^T) (X W_V1)
///   out = softmax_over_experts(scale (X W_Q2) (P' W_K2)^T) (P' W_V2)                         head by head.
///
/// A row sees its whole sequence: causal_dispatcher_attention() does not look ahead. A bias after W_K2 would cancel in
/// the softmax and one after W_V2 would add to every row: there are none. Rows may lie any distance apart.
///
/// Time O(T k D + N k D^2), no map [T, k] is stored: both softmaxes meet their keys tile by tile, with a running
/// maximum. Keeps its inputs, the outputs and the log-sum-exps [T, heads] and [N, k, heads]; backward computes
/// probabilities again. A non-finite key or value makes its sequence NaN. Throws ShapeError, DTypeError; ValueError for
/// no head, no expert, a scale that is not finite, and queries (of experts or rows) that are not.
DispatcherOutput dispatcher_attention(const DispatcherInputs& in, const Offsets& offsets,
                                      const DispatcherOptions& options = {});

}  // namespace tally::ops
