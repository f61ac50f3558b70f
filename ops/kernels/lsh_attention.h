#pragma once

#include <cstdint>
#include <span>

#include "tally/ops/kernels/softmax_attention.h"

namespace tally::kernels {

/// One call of attention within hash buckets: what forward and backward share.
template <class T>
struct LshPlan {
  std::span<const std::int64_t> bounds;
  std::int64_t heads = 1;
  std::int64_t width = 0;        ///< of a query's head
  std::int64_t value_width = 0;  ///< of a value's head
  double scale = 1;              ///< of scores
  bool causal = true;
  std::int64_t chunk = 64;
  std::int64_t rounds = 1;
  std::int64_t half_buckets = 1;
  const T* rotations = nullptr;  ///< [rounds, half_buckets, width]
  MatrixRows<const T> qk, v;
};

/// output [T, heads * value_width] and log_sum_exp [T, heads]. Parallel over sequences and heads.
template <class T>
void lsh_forward(const LshPlan<T>& plan, T* output, double* log_sum_exp);

/// What backward reads and writes; gradients may be null.
template <class T>
struct LshBackward {
  const T* output = nullptr;
  const double* log_sum_exp = nullptr;
  const T* gradient_output = nullptr;
  T *gradient_qk = nullptr, *gradient_v = nullptr;
};
template <class T>
void lsh_backward(const LshPlan<T>& plan, const LshBackward<T>& data);

}  // namespace tally::kernels
