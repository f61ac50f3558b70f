#pragma once

#include <cstdint>
#include <span>

#include "tally/ops/kernels/softmax_attention.h"

namespace tally::kernels {

/// One call of attention with keys softmaxed over positions, over packed sequences.
template <class T>
struct PositionSoftmaxPlan {
  std::span<const std::int64_t> bounds;  ///< sequence i occupies rows [bounds[i], bounds[i + 1])
  std::int64_t heads = 1;                ///< of queries
  std::int64_t key_heads = 1;            ///< of keys and values; divides the heads
  std::int64_t width = 0;                ///< of a query's or key's head
  std::int64_t value_width = 0;          ///< of a value's head
  bool causal = true;
  MatrixRows<const T> q, k, v;
};

/// output [T, heads * value_width]. Parallel over sequences and heads of keys.
template <class T>
void position_softmax_forward(const PositionSoftmaxPlan<T>& plan, T* output);

/// Gradients, dense; null ones are not computed. Queries walk forward with the sums of what came before, keys and
/// values back with those of what came after.
template <class T>
void position_softmax_backward(const PositionSoftmaxPlan<T>& plan, const T* gradient_output, T* gradient_q,
                               T* gradient_k, T* gradient_v);

}  // namespace tally::kernels
