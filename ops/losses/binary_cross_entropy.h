#pragma once

#include "tally/autograd/var.h"

namespace tally::ops {

struct BinaryCrossEntropyOptions {
  Tensor weights = {};                ///< [T] constant factor of each token's loss; absent: 1
  double reduction_scale = 1;         ///< constant factor of the whole sum: 1 / tokens in the batch makes a mean
  bool average_over_samples = false;  ///< divides a token's loss by 1 + K, as gSASRec does
  double positive_power = 1;          ///< beta of gBCE, see gbce_positive_power()
};

/// SASRec's loss with sampled negatives (arXiv 1808.09781): reduction_scale * sum_t weight_t l_t, a scalar, with
///   l_t = -beta log sigmoid(x_t . p_t) - sum_k log sigmoid(-x_t . n_tk)
/// and p_t = table[positives_t], n_tk = table[negatives_tk], divided by 1 + K with average_over_samples. beta is
/// positive_power: 1 for SASRec, below 1 for gBCE (gSASRec, arXiv 2308.07192). Computed as log(1 + exp(...)), finite
/// for any finite scores.
///
/// x [T, D]   table [I, D]   positives i32 or i64 [T], -1 for a token that does not count (so does a weight of 0; what
/// stands in its row of negatives must still be items)   negatives i32 or i64 [T, K], K may be 0; one that equals the
/// positive counts as drawn Scores are computed from the rows of the table where they stand. dx [T, D] is computed with
/// the loss, for a cotangent of 1, and multiplied in backward; the table's gradient is a RowGrad. Keeps dx, the slopes
/// [T, 1 + K] and x when the table is tracked. The same bits with any number of threads. Throws ShapeError, DTypeError,
/// ValueError, IndexError (an item outside [0, I), with its position).
Var binary_cross_entropy(const Var& x, const Var& table, const Tensor& positives, const Tensor& negatives,
                         const BinaryCrossEntropyOptions& options = {});

/// beta of gBCE for `negatives` drawn uniformly from `items` and calibration t in [0, 1]: alpha (t (1 - 1 / alpha) + 1
/// / alpha) with alpha = negatives / (items - 1), which is 1 - t (1 - alpha). t = 0 gives 1, t = 1 gives alpha. Throws
/// ValueError unless 1 <= negatives < items and t is in [0, 1].
double gbce_positive_power(std::int64_t negatives, std::int64_t items, double calibration);

struct LogitsCrossEntropyOptions {
  double reduction_scale = 1;  ///< constant factor of the sum
};

/// reduction_scale * sum_i (log(1 + exp(z_i)) - y_i z_i): the cross-entropy of probabilities y (0, 1 or between;
/// constants) against sigmoid(logits z), as a scalar. Any equal shapes. Gradient: sigmoid(z) - y, kept in place of the
/// inputs. Throws ShapeError, DTypeError, ValueError.
Var binary_cross_entropy_with_logits(const Var& logits, const Tensor& targets,
                                     const LogitsCrossEntropyOptions& options = {});

}  // namespace tally::ops
