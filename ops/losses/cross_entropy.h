#pragma once

#include "tally/autograd/var.h"

namespace tally::ops {

/// Mean cross-entropy of logits against classes, a scalar: the mean of -log softmax(logits_t)[target_t] over the rows
/// whose target is not -1 (torch.nn.functional.cross_entropy with ignore_index -1; but 0 where no row counts, with
/// gradients of 0, where PyTorch has NaN).
///
/// logits [T, C] f32 or f64   targets [T] i32 or i64 in [0, C) or -1
/// Gradient: (softmax(logits_t) - e_target) / rows that count, 0 in the others. Keeps the logits. NaN or infinity among
/// a counted row's logits makes the loss NaN; a target of -infinity makes it infinite. Where the logits are products
/// with an item table, item_cross_entropy() makes the same without storing them. Throws ShapeError, DTypeError;
/// IndexError for a target outside, with its position.
Var cross_entropy(const Var& logits, const Tensor& targets);

}  // namespace tally::ops
