#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "tally/autograd/gradients.h"
#include "tally/ops/losses/loss_tokens.h"

namespace tally::ops {

/// Scores of tokens with a few rows of the item table each: what a loss with sampled negatives computes with, and keeps
/// for backward.
struct SampledScores {
  std::vector<std::int64_t> tokens;  ///< row of x of each counted token
  Tensor ids;                        ///< i64 [counted, M] rows of the table: the positive, then the negatives
  Tensor slopes;                     ///< [counted, M] of the loss with respect to each score; undefined when not wanted

  /// The table's gradient: row i gets the sum of slope times x over its uses, in order of token, then of sample.
  RowGrad table_gradient(const Tensor& x, const Shape& table) const;
};

/// ids [counted, 1 + K] of the counted tokens: their target, then their row of `negatives` (i64 [tokens, K]).
Tensor positives_and_negatives(const LossTokens& counted, const Tensor& negatives);

/// The loss of counted tokens [first, first + count) from their scores [count, M]; overwrites the scores with its
/// slopes when they are wanted (and with anything when not).
template <class T>
using SampledLoss = std::function<double(std::int64_t first, std::int64_t count, T* scores, bool wants_slopes)>;

/// Sums `loss` over blocks of counted tokens, whose scores are read straight from the rows of `table` [I, D]. Fills the
/// rows of dx [tokens, D] (zeros before) that count, when it is defined, and scores.slopes, when that is. The same bits
/// with any number of threads.
template <class T>
double sum_sampled_losses(const Tensor& x, const Tensor& table, SampledScores& scores, Tensor& dx,
                          const SampledLoss<T>& loss);

}  // namespace tally::ops
