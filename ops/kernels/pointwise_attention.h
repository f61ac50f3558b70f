#pragma once

#include "tally/ops/kernels/softmax_attention.h"

namespace tally::kernels {

/// output [T, heads * value_width] of silu(scale q k^T) v / n, head by head; plan.window and plan.dropout are not used.
/// n is `normalizer`, or the number of visible rows for 0. Parallel as attention_forward().
template <class T>
void pointwise_attention_forward(const AttentionPlan& plan, double normalizer, MatrixRows<const T> q,
                                 MatrixRows<const T> k, MatrixRows<const T> v, T* output);

/// Computes scores again, tile by tile, in the order of attention_backward(). data.output and data.log_sum_exp are not
/// read.
template <class T>
void pointwise_attention_backward(const AttentionPlan& plan, double normalizer, const AttentionBackward<T>& data);

}  // namespace tally::kernels
