#pragma once

#include "tally/autograd/var.h"

namespace tally::ops {

struct SampledSoftmaxOptions {
  Tensor log_q_positives = {};  ///< [T] log probability of drawing each positive; absent: not corrected
  Tensor log_q_negatives = {};  ///< shape of the negatives: log probability of drawing each; absent: not corrected
  Tensor weights = {};          ///< [T] constant factor of each token's loss; absent: 1
  bool remove_accidental_hits = true;  ///< a negative that is the token's positive takes no part
  double reduction_scale = 1;          ///< constant factor of the whole sum: 1 / tokens in the batch makes a mean
};

/// Softmax cross-entropy over the positive and K negatives: reduction_scale * sum_t weight_t l_t, a scalar, with
///   l_t = log(exp(s_t+) + sum_k exp(s_tk)) - s_t+,   s_t+ = x_t . table[positives_t] - log_q_positives_t,
///   s_tk = x_t . table[negatives_k] - log_q_negatives_k
/// The logQ terms correct the bias of sampling (Bengio & Senecal 2008). With every other item as a negative and no logQ
/// this is item_cross_entropy.
///
/// x [T, D]   table [I, D]   positives i32 or i64 [T], -1 for a token that does not count (so does a weight of 0)
/// negatives i32 or i64: [K], shared by all tokens (then the scores are matrix products, in tiles that are never all
/// there, as in item_cross_entropy; only the K rows are gathered), or [T, K], each token's own (its scores are computed
/// from the rows of the table where they stand). K may be 0. A negative drawn twice counts twice. dx [T, D] is computed
/// with the loss, for a cotangent of 1, and multiplied in backward; the table's gradient is a RowGrad. Keeps dx and,
/// for the table's gradient, x, the slopes [T, 1 + K] (or [T] and [K, D] when shared). The same bits with any number of
/// threads. Log probabilities are constants and must be finite. Throws ShapeError, DTypeError, ValueError, IndexError
/// (an item outside [0, I), with its position).
Var sampled_softmax(const Var& x, const Var& table, const Tensor& positives, const Tensor& negatives,
                    const SampledSoftmaxOptions& options = {});

}  // namespace tally::ops
