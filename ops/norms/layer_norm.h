#pragma once

#include "tally/autograd/var.h"

namespace tally::ops {

struct LayerNormOptions {
  double epsilon = 1e-5;
};

/// y = (x - mean) / sqrt(variance + epsilon) * weight + bias over the last dimension (Ba et al., arXiv 1607.06450); the
/// variance is the mean of squared deviations.
///
/// x [..., D]   weight [D] or absent (ones)   bias [D] or absent (zeros). Returns [..., D]; D at least 1.
/// Accurate for rows far from 0 (deviations are taken from a first estimate of the mean, then corrected) and for
/// constant rows, which give the bias. In f32 deviations must stay below 1e18. Gradients: with u the normalised row and
/// h = gy * weight, gx = (h - mean(h) - u mean(h u)) / sqrt(variance + epsilon); gweight = sum gy u and gbias = sum gy
/// over rows, in fixed blocks, in double. Keeps x and three numbers a row when x or the weight is tracked, the weight
/// when x is. Throws ShapeError, DTypeError; ValueError for a negative epsilon.
Var layer_norm(const Var& x, const Var& weight = {}, const Var& bias = {}, const LayerNormOptions& options = {});

}  // namespace tally::ops
