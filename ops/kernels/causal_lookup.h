#pragma once

#include <cstdint>

#include "tally/ops/kernels/lookup_order.h"
#include "tally/ops/kernels/softmax_attention.h"

namespace tally::kernels {

/// One call of lookups in a gated linear memory: what forward and backward share.
template <class T>
struct CausalLookupPlan {
  LookupOrder order;
  std::int64_t width = 0, value_width = 0;
  MatrixRows<const T> queries, keys, values;
  const T* log_decay = nullptr;  ///< [T]; null: nothing decays
  const T* gain = nullptr;       ///< [T]; null: 1
};

/// output [M, value_width]. Parallel over documents; within one, chunk by chunk with a state [width, value_width].
template <class T>
void causal_lookup_forward(const CausalLookupPlan<T>& plan, T* output);

/// What backward reads and writes: dense matrices. Gradients may be null; those of rows that no lookup sees are left as
/// they are. Where keys and values are the same rows, gradient_values may be gradient_keys, which then gets their sum.
template <class T>
struct CausalLookupBackward {
  const T* gradient_output = nullptr;
  T* gradient_queries = nullptr;
  T* gradient_keys = nullptr;
  T* gradient_values = nullptr;
  T* gradient_log_decay = nullptr;
  T* gradient_gain = nullptr;
};

/// Queries walk forward with the state of what came before, all else back with the state's gradient. Parallel over
/// documents. Beside a few chunks of buffers only a number for each lookup is kept between the two walks.
template <class T>
void causal_lookup_backward(const CausalLookupPlan<T>& plan, const CausalLookupBackward<T>& data);

}  // namespace tally::kernels
