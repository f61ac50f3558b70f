#pragma once

#include <cstdint>
#include <span>

namespace tally::kernels {

/// Cross-entropy of tokens against all rows of a table, as raw views: scores s = x table^T + bias, of which each
/// counted token has one that is right. That one is a column of s (`targets`), or stands beside the columns
/// (`target_scores`, as in sampled softmax, where the table holds the negatives).
template <class T>
struct TableSoftmax {
  const T* x = nullptr;      ///< [tokens, width]
  const T* table = nullptr;  ///< [items, width]
  const T* bias = nullptr;   ///< [items], or null for none
  std::int64_t items = 0, width = 0;
  std::span<const std::int64_t> tokens = {};   ///< rows of x that count, ascending
  std::span<const double> weights = {};        ///< factor of its loss, for each counted token
  std::span<const std::int64_t> targets = {};  ///< the right column for each counted token; empty with target_scores
  std::span<const double> target_scores = {};  ///< the right score for each counted token; empty with targets
  /// Columns that do not exist for a token: counted token c leaves out excluded[excluded_bounds[c] ... [c + 1]). May be
  /// empty.
  std::span<const std::int64_t> excluded_bounds = {}, excluded = {};
};

/// Where gradients go; null for those not wanted. x is overwritten (rows of counted tokens only), the others are added
/// to.
template <class T>
struct TableSoftmaxGradients {
  T* x = nullptr;                   ///< [tokens, width], without the part through target_scores
  T* table = nullptr;               ///< [items, width]
  T* bias = nullptr;                ///< [items]
  double* target_scores = nullptr;  ///< of the problem's target_scores, for each counted token
};

/// Returns sum_t weight_t (log sum_i exp(s_ti) - s_t,right) and computes the wanted gradients of it in the same pass;
/// the source begins with how. A score of -infinity has probability 0. Bits depend on sizes only, not on threads.
double table_softmax(const TableSoftmax<float>& problem, const TableSoftmaxGradients<float>& gradients);
double table_softmax(const TableSoftmax<double>& problem, const TableSoftmaxGradients<double>& gradients);

}  // namespace tally::kernels
