#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"
#include "tally/ops/elementwise/activation.h"

namespace tally::ops {

/// Depthwise causal convolution along packed sequences: a row and the W - 1 rows before it in its sequence, each column
/// with weights of its own (the short convolution of Mamba, arXiv 2312.00752, and of the delta rules; ONNX's
/// CausalConvWithState):
///
///   y_t = activation(bias + sum_i weight[:, i] * x_(t - (W - 1) + i))
///
/// x [T, D]   weight [D, W], a row's own weight last   bias [D] or absent   initial [N, W - 1, D] or absent for zeros:
/// the rows before each sequence, oldest first   offsets [N + 1]   activation: none or silu
///
/// Returns [T, D]. What a sequence gives depends on no other one. last_rows(x, initial, offsets, W - 1) is the
/// `initial` of what follows: a sequence cut anywhere, into pieces shorter than W - 1 or empty ones too, gives the bits
/// of the uncut one, and its gradients up to rounding. Keeps x, the weight, the bias and `initial` as gradients need
/// them; with silu the convolution is computed once more in backward. Throws ShapeError, DTypeError; ValueError for
/// another activation.
Var causal_conv1d(const Var& x, const Var& weight, const Var& bias, const Var& initial, const Offsets& offsets,
                  Activation activation = Activation::none);

}  // namespace tally::ops
