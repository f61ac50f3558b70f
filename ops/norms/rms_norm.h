#pragma once

#include "tally/autograd/var.h"

namespace tally::ops {

struct RmsNormOptions {
  double epsilon = 1e-6;
};

/// y = x / sqrt(mean of x^2 + epsilon) * weight over the last dimension (Zhang & Sennrich, arXiv 1910.07467).
///
/// x [..., D]   weight [D] or absent (ones). Returns [..., D]; D at least 1. In f32 |x| must stay below 1e18.
/// Gradients: with u the normalised row and h = gy * weight, gx = (h - u mean(h u)) / sqrt(mean of x^2 + epsilon);
/// gweight = sum gy u over rows, in fixed blocks, in double.
/// Keeps x and three numbers a row when x or the weight is tracked, the weight when x is.
/// Throws ShapeError, DTypeError; ValueError for a negative epsilon.
Var rms_norm(const Var& x, const Var& weight = {}, const RmsNormOptions& options = {});

}  // namespace tally::ops
