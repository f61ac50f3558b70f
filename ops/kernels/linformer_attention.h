#pragma once

#include <cstdint>
#include <span>

#include "tally/ops/kernels/softmax_attention.h"

namespace tally::kernels {

/// One call of attention over projected keys. The projections have rows `columns` apart.
template <class T>
struct LinformerPlan {
  std::span<const std::int64_t> bounds;
  std::int64_t heads = 1;
  std::int64_t width = 0;        ///< of a query's or key's head
  std::int64_t value_width = 0;  ///< of a value's head
  double scale = 1;              ///< of scores
  std::int64_t projected = 0;    ///< keys after projection
  std::int64_t columns = 0;      ///< of the projections
  MatrixRows<const T> q, k, v;
  const T *key_projection = nullptr, *value_projection = nullptr;
};

/// output [T, heads * value_width] and log_sum_exp [T, heads]. Parallel over sequences and heads.
template <class T>
void linformer_forward(const LinformerPlan<T>& plan, T* output, double* log_sum_exp);

/// What backward reads and writes; gradients may be null.
template <class T>
struct LinformerBackward {
  const T* output = nullptr;
  const double* log_sum_exp = nullptr;
  const T* gradient_output = nullptr;
  T *gradient_q = nullptr, *gradient_k = nullptr, *gradient_v = nullptr;
  T *gradient_key_projection = nullptr, *gradient_value_projection = nullptr;
};
template <class T>
void linformer_backward(const LinformerPlan<T>& plan, const LinformerBackward<T>& data);

}  // namespace tally::kernels
