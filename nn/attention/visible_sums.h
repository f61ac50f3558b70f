#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"
#include "tally/ops/attention/softmax_attention.h"

namespace tally::nn {

/// At each row of x [T, D], the sum of the rows of its sequence that it sees: those up to it, or all.
Var visible_sums(const Var& x, const Offsets& offsets, ops::AttentionMask mask);

}  // namespace tally::nn
