#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"

namespace tally::ops {

/// The last rows of each packed sequence, of those before it where it is too short: what a causal convolution of
/// `count` + 1 taps remembers of it, and ONNX's present_state of CausalConvWithState.
///
/// x [T, D]   initial [N, count, D], the rows before each sequence, oldest first, or absent for zeros   offsets [N + 1]
///
/// Returns [N, count, D], oldest first. Keeps nothing. Throws ShapeError, DTypeError; ValueError for a negative count.
Var last_rows(const Var& x, const Var& initial, const Offsets& offsets, std::int64_t count);

}  // namespace tally::ops
