#pragma once

#include "tally/core/tensor.h"

// How a memory's slots are used, from counts or weights of what was read: i64, f32 or f64 of any shape, none below 0.

namespace tally::nn {

/// Share of the slots that were read at all; 0 of none.
double share_used(const Tensor& use);

/// KL(use / total || uniform) = log(slots) + sum z log z: 0 where all slots are read alike, log(slots) where one is
/// (Lample et al., arXiv 1907.05242, section 4.4). 0 when nothing was read.
double divergence_from_uniform(const Tensor& use);

}  // namespace tally::nn
