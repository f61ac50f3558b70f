#pragma once

#include "tally/autograd/var.h"

namespace tally::ops {

struct ItemCrossEntropyOptions {
  Var bias = {};               ///< [I], added to the scores; may be absent, may be -infinity (an item that cannot be)
  Tensor weights = {};         ///< [T] constant factor of each token's loss; absent: 1
  double reduction_scale = 1;  ///< constant factor of the whole sum: 1 / tokens in the batch makes a mean over shards
};

/// Cross-entropy against a whole item table: reduction_scale * sum_t weight_t (-log softmax(x_t table^T +
/// bias)[target_t]), a scalar.
///
/// x [T, D]   table [I, D]   targets i32 or i64 [T], -1 for a token that does not count (so does a weight of 0)
/// The scores [T, I] are never stored: they exist for a tile of tokens at a time (at most 16 MiB for f32 or f64,
/// usually less than 2 MiB), in cache. The loss is a sum over tokens, so its gradients for a cotangent of 1 are
/// computed in the same pass, when some gradient can be asked for, and kept instead of the inputs: dx [T, D], dtable
/// [I, D] and dbias [I]; backward multiplies them by the cotangent. That saves one of four matrix products, and writes
/// nothing twice when the loss is the end of the computation (cotangent 1). Evaluation without a tape computes the loss
/// alone. The gradient of the table is dense. Sums run in a fixed order: the same bits with any number of threads;
/// parallel over items when called outside a parallel region. NaN or +infinity among the scores of a counted token
/// makes the loss NaN; a target of score -infinity makes it infinite. Throws ShapeError, DTypeError, ValueError,
/// IndexError (a target outside [0, I), with its position).
Var item_cross_entropy(const Var& x, const Var& table, const Tensor& targets,
                       const ItemCrossEntropyOptions& options = {});

}  // namespace tally::ops
