#pragma once

#include <span>
#include <vector>

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"
#include "tally/ops/attention/softmax_attention.h"

namespace tally::ops {

/// phi, applied to queries and keys.
enum class FeatureMap {
  elu,              ///< elu(x) + 1 (Katharopoulos et al., arXiv 2006.16236): m = d features
  positive_random,  ///< FAVOR+ (Choromanski et al., arXiv 2009.14794): exp(<w_f, x> - |x|^2 / 2) for m directions w_f
};

struct NormalizedLinearAttentionOptions {
  std::int64_t heads = 1;
  AttentionMask mask = AttentionMask::causal;
  FeatureMap feature_map = FeatureMap::elu;
  /// positive_random: the scale of the softmax scores that are approximated, 0 for 1 / sqrt(d); q and k are multiplied
  /// by its root. elu has none.
  double scale = 0;
};

/// Linear attention over packed sequences: output row i of a head is sum_j phi(q_i) . phi(k_j) v_j / sum_j phi(q_i) .
/// phi(k_j) over the visible keys j of i's sequence. Time O(T m e), no matrix of scores: chunks of rows meet by matrix
/// products, and what came before a chunk is the state S = sum_j phi(k_j) v_j^T [m, e] and z = sum_j phi(k_j) [m].
///
/// q, k [T, heads * d] f32 or f64, v [T, heads * e] of the same type, head h in columns [h d, (h + 1) d); rows may lie
/// any distance apart. directions [m, d] for positive_random (nn::orthogonal_directions), never differentiated; absent
/// for elu. Returns [T, heads * e].
///
/// Features are kept relative to the largest of their row, and states relative to the largest key so far, so that no
/// size of q, k or length overflows, and nothing that a later key does reaches an earlier row. These references cancel
/// in the quotient. (A weight per key relative to a running maximum is also what gates and decay need.) Where all
/// features of the visible keys vanish against the query's, to below 1e-30 (f64: 1e-290), the row is 0, with no
/// gradient. A non-finite query or key makes the rows that see it NaN.
///
/// Keeps q, k, v, its output and the denominators [T, heads]; backward computes features and states again, walking
/// forward for queries and back for keys and values. Throws ShapeError, DTypeError; ValueError for a scale that is
/// negative, not finite, or set for elu, and for directions where there should be none or none where there should be.
Var normalized_linear_attention(const Var& q, const Var& k, const Var& v, const Var& directions, const Offsets& offsets,
                                const NormalizedLinearAttentionOptions& options = {});

/// The recurrent form of causal normalized_linear_attention in f32: all that is left of a history, of a size that does
/// not depend on its length. Sums are in double, so that they are as good after a million events as after a hundred. A
/// plain value.
struct NormalizedLinearAttentionState {
  std::int64_t heads = 0, features = 0, value_width = 0;
  std::vector<double> sums;       ///< [heads, m, e + 1]: S, and z as the last column, both divided by exp(reference)
  std::vector<double> reference;  ///< [heads] logarithm of the largest key's weight so far, -infinity at first

  std::size_t heap_bytes() const { return (sums.capacity() + reference.capacity()) * sizeof(double); }
};

/// The state before the first event. `features` is m. Throws ValueError for sizes below 1.
NormalizedLinearAttentionState normalized_linear_attention_state(std::int64_t heads, std::int64_t features,
                                                                 std::int64_t value_width);

/// Adds an event's key and value, then answers its query: the row that normalized_linear_attention gives at this place,
/// up to rounding. q, k [heads * d], v and output [heads * e], `directions` [m, d] as above or undefined. Throws
/// ShapeError when the sizes are not the state's.
void normalized_linear_attention_step(NormalizedLinearAttentionState& state, std::span<const float> q,
                                      std::span<const float> k, std::span<const float> v, const Tensor& directions,
                                      std::span<float> output, const NormalizedLinearAttentionOptions& options = {});

/// The state of both histories together, as if the events of one had followed the other's. Throws ShapeError when the
/// sizes differ.
NormalizedLinearAttentionState merge(const NormalizedLinearAttentionState& a, const NormalizedLinearAttentionState& b);

}  // namespace tally::ops
