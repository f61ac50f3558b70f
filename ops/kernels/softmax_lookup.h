#pragma once

#include <cstdint>

#include "tally/ops/kernels/lookup_order.h"
#include "tally/ops/kernels/softmax_attention.h"

namespace tally::kernels {

/// One call of softmax lookups: what forward and backward share.
template <class T>
struct SoftmaxLookupPlan {
  LookupOrder order;
  std::int64_t width = 0, value_width = 0;
  double scale = 1;  ///< of scores
  MatrixRows<const T> queries, keys, values;
};

/// output [M, value_width] and log_sum_exp [M]. Blocks of queries, nearest in place, meet the keys that they see tile
/// by tile with a running maximum and sum. Parallel over blocks of queries.
template <class T>
void softmax_lookup_forward(const SoftmaxLookupPlan<T>& plan, T* output, double* log_sum_exp);

/// What backward reads and writes: dense matrices. Gradients may be null and are added to; `output` is read only when
/// that of queries or keys is wanted.
template <class T>
struct SoftmaxLookupBackward {
  const T* output = nullptr;
  const double* log_sum_exp = nullptr;
  const T* gradient_output = nullptr;
  T* gradient_queries = nullptr;
  T* gradient_keys = nullptr;
  T* gradient_values = nullptr;
};

/// Computes probabilities again. Parallel over documents; of one that has a large share of all scores, over pairs of a
/// block of queries and a tile of keys, in steps within which none occurs twice: the order of every sum is fixed.
template <class T>
void softmax_lookup_backward(const SoftmaxLookupPlan<T>& plan, const SoftmaxLookupBackward<T>& data);

}  // namespace tally::kernels
