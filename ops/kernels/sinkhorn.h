#pragma once

#include <cstdint>
#include <vector>

namespace tally::kernels {

/// A soft permutation of n blocks by Sinkhorn's alternating normalisation, in logarithms and in double. Rows are
/// normalised, then `iterations` times columns and rows. Causal: only entries j < i exist, and entry (i, j) is
/// normalised over the rows up to i of its column.
class SoftPermutation {
 public:
  /// `logits` [n, n] within rows `stride` apart; they are multiplied by `factor`.
  template <class T>
  SoftPermutation(const T* logits, std::int64_t stride, std::int64_t n, double factor, std::int64_t iterations,
                  bool causal);

  /// The matrix [n, n]; rows sum to 1, or to 0 where nothing is visible.
  template <class T>
  void write(T* matrix) const;
  /// Adds nothing: sets the visible part of `gradient_logits`, as far apart as the logits, from the matrix' gradient.
  template <class T>
  void backward(const T* gradient, T* gradient_logits, std::int64_t stride) const;

 private:
  std::int64_t visible(std::int64_t i) const { return causal_ ? i : n_; }

  std::int64_t n_;
  double factor_;
  bool causal_;
  std::vector<std::vector<double>> steps_;  ///< logarithms before and after each normalisation: rows, columns, rows ...
};

}  // namespace tally::kernels
