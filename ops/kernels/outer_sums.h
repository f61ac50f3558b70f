#pragma once

#include <cstdint>
#include <span>

#include "tally/ops/kernels/softmax_attention.h"

namespace tally::kernels {

/// One call: what forward and backward share. A row's weight is what is left of it at its document's end, times its
/// gain.
template <class T>
struct OuterSumsPlan {
  std::span<const std::int64_t> bounds;  ///< document d occupies rows [bounds[d], bounds[d + 1])
  std::int64_t width = 0;
  MatrixRows<const T> rows;
  const T* log_decay = nullptr;  ///< [T]; null: nothing decays
  const T* gain = nullptr;       ///< [T]; null: 1
  const T* initial = nullptr;    ///< [N, packed]; null: zero
};

/// output [N, packed]. f32 products of a block of rows are added in double. Parallel over segments of documents.
template <class T>
void outer_sums_forward(const OuterSumsPlan<T>& plan, T* output);

/// What backward reads and writes, all dense. Gradients may be null; those of rows of which nothing is left are left as
/// they are.
template <class T>
struct OuterSumsBackward {
  const T* gradient_output = nullptr;
  T* gradient_rows = nullptr;
  T* gradient_log_decay = nullptr;
  T* gradient_gain = nullptr;
  T* gradient_initial = nullptr;
};

template <class T>
void outer_sums_backward(const OuterSumsPlan<T>& plan, const OuterSumsBackward<T>& data);

}  // namespace tally::kernels
