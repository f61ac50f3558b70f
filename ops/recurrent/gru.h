#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"

namespace tally::ops {

struct GruOptions {
  bool linear_before_reset = true;
};

/// Gated recurrent unit over packed sequences (Cho et al., arXiv 1406.1078), in the form that PyTorch and cuDNN have:
/// with x_t = the row of `products`, h_0 = the sequence's row of `initial`, and hidden_t = W h_{t-1} + b,
///
///   r = sigmoid(x_r + hidden_r)   z = sigmoid(x_z + hidden_z)   n = tanh(x_n + r * hidden_n)
///   h_t = (1 - z) * n + z * h_{t-1}
///
/// Without `linear_before_reset` it is that of the paper, and of ONNX's default: the gate r multiplies the state before
/// the product, n = tanh(x_n + W_n (r * h_{t-1}) + b_n).
///
/// products [T, 3 H], the inputs times their weights (ops::linear, one product for all rows), gates r, z, n side by
/// side   weight [3 H, H]   bias [3 H] or absent   initial [N, H] or absent for zeros   all f32 or all f64.
/// Returns the states [T, H]; one row per sequence and `initial` make it a step. The sequences that are still alive
/// walk through time together; a sequence's bits do not depend on the others. Keeps the gates and hidden_n (or r *
/// h_{t-1}) [T, 4 H], its output, the weight, and `initial`. The weight's gradient is one product over all rows. Throws
/// ShapeError, DTypeError.
Var gru(const Var& products, const Var& weight, const Var& bias, const Var& initial, const Offsets& offsets,
        const GruOptions& options = {});

}  // namespace tally::ops
