#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "tally/ops/kernels/linear_attention.h"
#include "tally/ops/kernels/lookup_gates.h"
#include "tally/ops/kernels/scratch.h"

// Decays within a chunk of linear attention, of a scalar a row or of each channel, with one face. D(i, j) is what
// is left at row i of row j: the running product of the decays of rows j + 1 .. i, never a quotient, so that it is
// exact where a decay is 0 and nothing overflows. Matrices of pairs are [kLookupChunk, kLookupChunk], first by the
// reading row.

namespace tally::kernels {

/// One decay a row, or none.
template <class T>
class ScalarDecays {
 public:
  static constexpr DecayOf kOf = DecayOf::state;
  /// `slopes`: the gradients of the decays will be asked for.
  ScalarDecays(const LinearAttentionPlan<T>& plan, bool slopes);
  /// Rows [row, row + rows) of a memory; `begins`: the state before them is 0, and nothing can decay at the first.
  void load(std::int64_t memory, std::int64_t row, std::int64_t rows, bool begins);

  /// x times what is left of the state before the chunk at each row: x itself where nothing decays, or in `room`.
  MatrixRows<const T> before(MatrixRows<const T> x, T* room) const;
  /// x times what is left of each row after the chunk.
  MatrixRows<const T> after(MatrixRows<const T> x, T* room) const;
  void decay_state(T* state) const;

  /// pairs[i, j] = D(i, j) <q_i, k_j> for j <= i, else 0.
  void pairs(MatrixRows<const T> q, MatrixRows<const T> k, T* pairs);
  /// From the gradients w of pairs: gq_i += sum_j w_ij D(i, j) k_j, and gk_j += sum_i w_ij D(i, j) q_i. Overwrites w.
  void pairs_backward(const T* pairs, T* w, MatrixRows<const T> q, MatrixRows<const T> k, T* gq, T* gk);

  // What the decays' gradients are made of: products of factors and their gradients, of which one has decayed.
  /// x_i read the state before the chunk, y_i is its gradient.
  void note_before(MatrixRows<const T> x, const T* y);
  /// x_i was written to the state after the chunk.
  void note_after(MatrixRows<const T> x, const T* y);
  /// The state before the chunk, and the gradient of that after it.
  void note_state(const T* state, const T* gradient);
  /// The gradients of the chunk's log decays.
  void slopes(T* gradient, std::int64_t stride) const;

 private:
  const LinearAttentionPlan<T>& plan_;
  bool decays_, slopes_, begins_ = false;
  std::int64_t loaded_ = -1, rows_ = 0;
  ChunkGates<T> gates_;
  PairSums sums_;
  double crossing_ = 0;
};

/// A decay of each channel of keys, or of values. Pairs go by sub-blocks of rows: products of what is left of a row at
/// a sub-block's beginning and of that at a row of it. Within a sub-block that is gentle, which leaves enough of every
/// channel that its inverse is harmless, D(i, j) is a quotient of products from the first row, and pairs are a matrix
/// product too; else they are taken one by one. A gentle chunk is one sub-block, others have sub-blocks of 16 rows.
///
/// A decay of key channels stands between queries and keys. One of value channels stands between what rows wrote and
/// the outputs, and so do the functions: x are rows of the output's width, y what rows wrote.
template <class T, DecayOf kDecayOf>
class ChannelDecays {
 public:
  static constexpr DecayOf kOf = kDecayOf;
  ChannelDecays(const LinearAttentionPlan<T>& plan, bool slopes);
  void load(std::int64_t memory, std::int64_t row, std::int64_t rows, bool begins);
  MatrixRows<const T> before(MatrixRows<const T> x, T* room) const;
  MatrixRows<const T> after(MatrixRows<const T> x, T* room) const;
  void decay_state(T* state) const;
  void pairs(MatrixRows<const T> x, MatrixRows<const T> y, T* pairs);
  /// gx may be null. Neither reads `pairs` nor changes w.
  void pairs_backward(const T* pairs, const T* w, MatrixRows<const T> x, MatrixRows<const T> y, T* gx, T* gy);
  /// to_i += sum over j <= i of w_ij D(i, j) y_j.
  void mix(const T* w, MatrixRows<const T> y, T* to);
  void note_before(MatrixRows<const T> x, const T* y);
  void note_after(MatrixRows<const T> x, const T* y);
  void note_state(const T* state, const T* gradient);
  void slopes(T* gradient, std::int64_t stride);

 private:
  /// The sums of mix() over j < i, to gradient_room_.
  void mix_earlier(const T* w, MatrixRows<const T> y);
  static constexpr std::int64_t kBlock = 16;
  std::int64_t blocks() const { return (rows_ + block_ - 1) / block_; }
  std::int64_t block_rows(std::int64_t block) const { return std::min(block_, rows_ - block * block_); }
  bool gentle(std::int64_t block) const { return gentle_[static_cast<std::size_t>(block)]; }
  /// The product from a sub-block's first row: of a chunk that is one, that from the chunk's first.
  const T* inner() const { return block_ == kLookupChunk ? before_.data() : inner_.data(); }
  /// What is left, at the end of the sub-block before `block`, of the rows before it: [block_ * block, width]. That of
  /// blocks() is what is left after the chunk.
  T* left(std::int64_t block) { return left_.data() + block_ * block * (block - 1) / 2 * width_; }
  const T* left(std::int64_t block) const { return const_cast<ChannelDecays*>(this)->left(block); }
  void multiply(const T* by, MatrixRows<const T> x, std::int64_t rows, T* to) const;
  /// Pairs of a sub-block of n rows below its diagonal, others 0, in strict_.
  const T* below_diagonal(const T* w, std::int64_t first, std::int64_t rows);

  const LinearAttentionPlan<T>& plan_;
  bool slopes_, begins_ = false;
  std::int64_t width_, rows_ = 0, block_ = kBlock;
  std::array<bool, static_cast<std::size_t>(kLookupChunk / kBlock)> gentle_{};
  Scratch<T> decay_, before_, inner_;  ///< [rows, width]
  Scratch<T> inverse_;                 ///< of inner(), in gentle sub-blocks
  Scratch<T> strict_;                  ///< [kLookupChunk, kLookupChunk]
  Scratch<T> left_, rows_room_, more_room_, gradient_room_, row_room_;
  Scratch<double> net_, later_, through_, sums_;
};

}  // namespace tally::kernels
