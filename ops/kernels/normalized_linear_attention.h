#pragma once

#include <cstdint>
#include <span>

#include "tally/ops/kernels/softmax_attention.h"

namespace tally::kernels {

/// One call of linear attention over packed sequences: what forward and backward share.
template <class T>
struct NormalizedLinearAttentionPlan {
  std::span<const std::int64_t> bounds;  ///< sequence i occupies rows [bounds[i], bounds[i + 1])
  std::int64_t heads = 1;
  std::int64_t width = 0;        ///< of a query's or key's head
  std::int64_t value_width = 0;  ///< of a value's head
  bool causal = true;
  const T* directions = nullptr;  ///< [features, width] of the positive random map; null for elu
  std::int64_t features = 0;      ///< the width for elu
  double root = 1;                ///< what the positive random map multiplies its input by
};

/// Features [rows, plan.features] of one head's rows and their log weights; `key`: with what cancels for queries.
template <class T>
void map_features(const NormalizedLinearAttentionPlan<T>& plan, bool key, const T* x, std::int64_t stride,
                  std::int64_t rows, T* features, T* log_weight);

/// output [T, heads * value_width] and denominators [T, heads], relative to the running maximum of the keys' log
/// weights; a denominator too small to divide by is stored as 0. Parallel over sequences and heads.
template <class T>
void normalized_linear_attention_forward(const NormalizedLinearAttentionPlan<T>& plan, MatrixRows<const T> q,
                                         MatrixRows<const T> k, MatrixRows<const T> v, T* output, T* denominators);

/// What backward reads and writes: dense matrices; gradients may be null.
template <class T>
struct NormalizedLinearAttentionBackward {
  MatrixRows<const T> q, k, v;
  const T* output = nullptr;
  const T* denominators = nullptr;
  const T* gradient_output = nullptr;
  T* gradient_q = nullptr;
  T* gradient_k = nullptr;
  T* gradient_v = nullptr;
};

/// Queries walk forward with the state of what came before, keys and values back with the state of what came after.
template <class T>
void normalized_linear_attention_backward(const NormalizedLinearAttentionPlan<T>& plan,
                                          const NormalizedLinearAttentionBackward<T>& data);

/// Adds a key and value (with a last element of 1) to a head's state [features, columns], held relative to
/// exp(reference), then gives the query's sums [columns].
void normalized_linear_attention_step(const float* query, const float* key, float log_weight, const float* value,
                                      std::int64_t features, std::int64_t columns, double* state, double& reference,
                                      double* sums);

/// Below this a denominator counts as 0.
template <class T>
inline constexpr T kSmallestDenominator = static_cast<T>(sizeof(T) == 4 ? 1e-30 : 1e-290);

}  // namespace tally::kernels
