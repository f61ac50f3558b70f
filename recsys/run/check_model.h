#pragma once

#include "tally/autograd/gradient_check.h"
#include "tally/recsys/config/model_config.h"

namespace tally::recsys {

/// Checks the gradient of the training loss with respect to every parameter of a config's model, in f64, on a small
/// batch that has an empty sequence and one of a single item, with dropout and negatives drawn from a fixed key. There
/// are 12 items, windows of up to 8 and up to 4 negatives; everything else is as configured.
GradientReport check_model_gradients(const ModelConfig& model, const Choice<LossRow>& loss,
                                     const GradientCheckOptions& options = {});
/// The same with cross-entropy over all items.
GradientReport check_model_gradients(const ModelConfig& model, const GradientCheckOptions& options = {});

}  // namespace tally::recsys
