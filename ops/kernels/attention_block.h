#pragma once

#include <cstdint>
#include <vector>

#include "tally/core/tensor.h"
#include "tally/ops/kernels/attention_tile.h"
#include "tally/ops/kernels/softmax_attention.h"

// Softmax attention of a block of queries over a few sets of keys that somebody chose for it: what attentions that
// sort, hash or project their keys have in common. All run on the calling thread.

namespace tally::kernels {

/// All columns of a tile.
inline constexpr TileBand kWholeTile{-(std::int64_t{1} << 40), std::int64_t{1} << 40};
/// Of a row with its own key, where that counts only for want of others: far below any score.
inline constexpr double kSelfScore = -1e3;

/// A set of keys and values, and which of them the rows see.
template <class T>
struct KeySet {
  MatrixRows<const T> keys, values;
  std::int64_t count = 0;
  TileBand band = kWholeTile;
  std::int64_t self = -1;  ///< row r's own key is at self + r and has the score kSelfScore; negative: none is special
  /// Row r sees the first visible[r] keys; null: all. A row's first set after start() must show it one.
  const std::int64_t* visible = nullptr;
};

/// Where the gradients of a set of keys are added; either may be null.
template <class T>
struct KeySetGradient {
  MatrixRows<T> keys, values;
};

/// Buffers and steps for blocks of up to `rows` queries and sets of up to `keys` keys. Every row must see a key.
template <class T>
class AttentionBlock {
 public:
  AttentionBlock(std::int64_t rows, std::int64_t keys, std::int64_t width, std::int64_t value_width, double scale);

  /// Forgets what was added; with `resumed`, the caller puts back the maxima, sums and rows of out of an earlier call.
  void start(std::int64_t rows, bool resumed = false);
  /// Adds a set of keys to the running softmax of the rows, and its part to out; the first one after start()
  /// sets out.
  void add(MatrixRows<const T> queries, std::int64_t rows, const KeySet<T>& set, MatrixRows<T> out);
  /// Divides out by the sums, and writes the log-sum-exp of row r at r * distance.
  void finish(std::int64_t rows, MatrixRows<T> out, double* log_sum_exp, std::int64_t distance);

  /// Adds the gradients of queries, keys and values for one set. `gradient` of the finished output; log_sum_exp and
  /// delta (inner product of an output's row and its gradient) of row r at r * distance. gradient_queries may be null.
  void backward(MatrixRows<const T> queries, std::int64_t rows, const KeySet<T>& set, MatrixRows<const T> gradient,
                const double* log_sum_exp, const T* delta, std::int64_t distance, MatrixRows<T> gradient_queries,
                const KeySetGradient<T>& to);

  /// Of each row, relative to which its parts of out are: for a caller that takes rows up again later.
  std::vector<T> maximum;
  std::vector<double> sum;

 private:
  void score(MatrixRows<const T> queries, std::int64_t rows, const KeySet<T>& set);
  /// Puts a value where the rows of a tile see nothing.
  void hide(std::int64_t rows, const KeySet<T>& set, T value, T* tile) const;

  std::int64_t stride_, width_, value_width_;
  T scale_;
  bool first_ = true;
  Tensor tiles_;
  T *scores_, *products_;
  std::vector<T> factor_;
};

/// delta [rows, heads] = the inner products of the heads' rows of an output and its gradient, both [rows, heads *
/// width] and dense.
template <class T>
void head_products(const T* output, const T* gradient, std::int64_t rows, std::int64_t heads, std::int64_t width,
                   T* delta);

}  // namespace tally::kernels
