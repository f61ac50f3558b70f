#pragma once

#include <span>
#include <vector>

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"
#include "tally/ops/attention/softmax_attention.h"

namespace tally::ops {

struct PositionSoftmaxOptions {
  std::int64_t heads = 1;
  std::int64_t key_heads = 0;  ///< of keys and values, each for as many neighbouring heads of queries; 0: as many
  AttentionMask mask = AttentionMask::causal;
};

/// Attention whose keys are softmaxed over positions, feature by feature, over packed sequences: the context of a row
/// is C = sum_j p_j v_j^T [d, e] with p_jc = exp(k_jc) / sum_j' exp(k_j'c) over the visible rows j of i's sequence, and
/// its output q_i^T C, head by head. That is Shen et al.'s efficient attention (arXiv 1812.01243) for queries softmaxed
/// over features, and the content of Bello's lambda layers (arXiv 2102.08602) for one head of keys and values. Time
/// O(T d e): chunks of rows meet by matrix products, and what came before is a sum of weights times values.
///
/// q [T, heads * d] f32 or f64, k [T, key_heads * d] and v [T, key_heads * e] of the same type, head h in columns
/// [h d, (h + 1) d); rows may lie any distance apart. Returns [T, heads * e]. Weights are relative to the largest key
/// of a feature so far (all, bidirectional): no size of keys overflows. Nothing that follows a row reaches it, but that
/// a key more than 40 above earlier ones begins another chunk, which may round the 63 rows before it otherwise. Keeps
/// q, k and v; backward computes contexts again, walking forward for queries and back for keys and values. A key of NaN
/// or infinity makes the rows that see it NaN, and a non-finite value may reach rows before it. Throws ShapeError,
/// DTypeError; ValueError for heads that do not fit.
Var position_softmax_attention(const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                               const PositionSoftmaxOptions& options = {});

/// The recurrent form of the causal one in f32: what is left of a history, of a size that does not depend on its
/// length, in double. A plain value.
struct PositionSoftmaxState {
  std::int64_t key_heads = 0, width = 0, value_width = 0;
  std::vector<double> sums;     ///< [key_heads, d, e + 1] of exp(k - maximum) v, and of exp(k - maximum) last
  std::vector<double> maximum;  ///< [key_heads, d] largest key so far, -infinity at first

  std::size_t heap_bytes() const { return (sums.capacity() + maximum.capacity()) * sizeof(double); }
};

/// The state before the first event. Throws ValueError for sizes below 1.
PositionSoftmaxState position_softmax_state(std::int64_t key_heads, std::int64_t width, std::int64_t value_width);

/// Adds an event's keys and values, then answers its queries: the row that the op gives at this place, up to rounding.
/// q [heads * d], k [key_heads * d], v [key_heads * e], output [heads * e]. Throws ShapeError when the sizes are not
/// the state's.
void position_softmax_step(PositionSoftmaxState& state, std::span<const float> q, std::span<const float> k,
                           std::span<const float> v, std::span<float> output);

}  // namespace tally::ops
