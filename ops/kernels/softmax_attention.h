#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "tally/ops/kernels/dropout.h"

namespace tally::kernels {

/// One call of softmax attention over packed sequences: what is shared by forward and backward.
struct AttentionPlan {
  std::span<const std::int64_t> bounds;  ///< sequence i occupies rows [bounds[i], bounds[i + 1])
  std::int64_t heads = 1;
  std::int64_t width = 0;        ///< of a query's or key's head
  std::int64_t value_width = 0;  ///< of a value's head
  double scale = 1;              ///< of scores
  bool causal = true;
  std::int64_t window = 0;                  ///< keys nearer than this are visible; 0 for no limit
  std::optional<DropoutMask> dropout = {};  ///< of probabilities, at (key.fold_in(head), row, position of the key)
  std::uint64_t first_row = 0;              ///< of the rows within what the mask's rows count
};

/// Rows of a matrix, `stride` elements apart.
template <class T>
struct MatrixRows {
  T* data = nullptr;
  std::int64_t stride = 0;
};

/// output [T, heads * value_width] and log_sum_exp [T, heads] of softmax(scale q k^T) v, head by head.
///
/// A block of queries meets its keys tile by tile with a running maximum and sum. Parallel over blocks of sequences and
/// heads; over blocks of queries inside a long sequence.
template <class T>
void attention_forward(const AttentionPlan& plan, MatrixRows<const T> q, MatrixRows<const T> k, MatrixRows<const T> v,
                       T* output, double* log_sum_exp);

/// What backward reads and writes: dense matrices [T, heads * width or value_width]; gradients may be null. `output`
/// and `v` are read only when gradient_q or gradient_k is wanted.
template <class T>
struct AttentionBackward {
  MatrixRows<const T> q, k, v;
  const T* output = nullptr;
  const double* log_sum_exp = nullptr;
  const T* gradient_output = nullptr;
  T* gradient_q = nullptr;
  T* gradient_k = nullptr;
  T* gradient_v = nullptr;
};

/// Computes probabilities again, tile by tile. A sequence is cut into n blocks of rows; at step s block j of keys meets
/// block j + s of queries (modulo n when bidirectional). All pairs of a step touch different rows of every gradient, so
/// they run in parallel and the order of every sum is fixed.
template <class T>
void attention_backward(const AttentionPlan& plan, const AttentionBackward<T>& data);

}  // namespace tally::kernels
