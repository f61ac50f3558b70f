#pragma once

#include "tally/autograd/var.h"

namespace tally::ops {

struct CommitmentLossOptions {
  Tensor weights = {};         ///< [T] constant factor of each row; absent: 1
  double reduction_scale = 1;  ///< constant factor of the whole sum: 1 / T makes a mean over rows
};

/// reduction_scale * sum_t weight_t ||x_t - target_t||^2, a scalar; the target is stopped: a constant.
///
/// The losses of VQ-VAE (van den Oord et al., arXiv 1711.00937) for rows x and their reconstruction: commitment is
/// commitment_loss(x, reconstruction.value()), the codebook term commitment_loss(decode_codes(codebooks, codes),
/// x.value()); `decode_codes` leads the gradient to the codewords alone, not straight through to x.
/// x and target [T, D] of one type. Keeps both. Throws ShapeError, DTypeError.
Var commitment_loss(const Var& x, const Tensor& target, const CommitmentLossOptions& options = {});

}  // namespace tally::ops
