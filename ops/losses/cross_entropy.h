#pragma once

#include <array>
#include <cstdint>

#include "tally/autograd/var.h"
#include "tally/core/words.h"

namespace tally::ops {

/// What a loss makes of the losses of single targets.
enum class Reduction : std::uint8_t {
  mean,  ///< their sum over the sum of the weights that count; 0 where none does
  sum,
  none,  ///< nothing: one for each target, 0 for those that are not counted
};
constexpr auto words(Reduction) {
  using W = Word<Reduction>;
  return std::array{W{"mean", Reduction::mean}, W{"sum", Reduction::sum}, W{"none", Reduction::none}};
}

struct CrossEntropyOptions {
  Reduction reduction = Reduction::mean;
  std::int64_t ignore_index = -1;  ///< a target that is not counted
  Tensor class_weights = {};       ///< [C] f32 or f64, finite; undefined: ones. A constant.
};

/// Cross-entropy of logits against classes: of each target class_weights[target] (-log softmax(logits)[target]), made
/// one by `reduction` (torch.nn.functional.cross_entropy, ONNX's SoftmaxCrossEntropyLoss; but a mean is 0 where no
/// target counts, with gradients of 0, where PyTorch has NaN).
///
/// logits [T, C] or [N, C, ...] f32 or f64   targets [T] or [N, ...] i32 or i64 in [0, C) or `ignore_index`. Returns a
/// scalar, or the shape of the targets.
/// Gradient: weight (softmax(logits_t) - e_target) / weights that count, 0 for targets that do not. Keeps the logits.
/// NaN or infinity among a counted target's logits makes its loss NaN; a target of -infinity makes it infinite. Where
/// the logits are products with an item table, item_cross_entropy() makes the same without storing them. Throws
/// ShapeError, DTypeError; IndexError for a target outside, with its position in the targets' order; ValueError for a
/// weight that is not finite.
Var cross_entropy(const Var& logits, const Tensor& targets, const CrossEntropyOptions& options = {});

/// The same of logarithms of probabilities, as log_softmax() gives them: class_weights[target] times minus the target's
/// own (torch.nn.functional.nll_loss, ONNX's NegativeLogLikelihoodLoss). Shapes, options and errors as cross_entropy();
/// composed of other ops.
Var negative_log_likelihood(const Var& log_probabilities, const Tensor& targets,
                            const CrossEntropyOptions& options = {});

}  // namespace tally::ops
