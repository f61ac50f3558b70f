#pragma once

#include <cstdint>
#include <span>

#include "tally/ops/kernels/softmax_attention.h"

namespace tally::kernels {

/// One call of attention to one's own and a softly sorted block. Keys and values are dense; logits have rows
/// `logit_columns` apart, one for each block of each sequence.
template <class T>
struct SinkhornAttentionPlan {
  std::span<const std::int64_t> bounds;
  std::int64_t heads = 1;
  std::int64_t width = 0;        ///< of a query's or key's head
  std::int64_t value_width = 0;  ///< of a value's head
  double scale = 1;              ///< of scores
  bool causal = true;
  std::int64_t block = 64;
  std::int64_t iterations = 8;
  double temperature = 1;
  std::int64_t logit_columns = 0;
  MatrixRows<const T> q;
  const T *k = nullptr, *v = nullptr, *logits = nullptr;
};

/// output [T, heads * value_width] and log_sum_exp [T, heads]. Parallel over sequences, then over blocks and heads.
template <class T>
void sinkhorn_attention_forward(const SinkhornAttentionPlan<T>& plan, T* output, double* log_sum_exp);

/// What backward reads and writes; gradients may be null.
template <class T>
struct SinkhornAttentionBackward {
  const T* output = nullptr;
  const double* log_sum_exp = nullptr;
  const T* gradient_output = nullptr;
  T *gradient_q = nullptr, *gradient_k = nullptr, *gradient_v = nullptr, *gradient_logits = nullptr;
};
template <class T>
void sinkhorn_attention_backward(const SinkhornAttentionPlan<T>& plan, const SinkhornAttentionBackward<T>& data);

}  // namespace tally::kernels
