#pragma once

#include "tally/autograd/gradient_check.h"
#include "tally/recsys/config/model_config.h"

namespace tally::recsys {

/// Checks the gradient of the training loss with respect to every parameter of a config's model, in f64, on a small
/// batch that has an empty sequence and one of a single item, with dropout drawn from a fixed key. The item table is
/// small; everything else is as configured.
GradientReport check_model_gradients(const ModelConfig& config, const GradientCheckOptions& options = {});

}  // namespace tally::recsys
