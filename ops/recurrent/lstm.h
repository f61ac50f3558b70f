#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"

namespace tally::ops {

struct LstmResult {
  Var states;  ///< [T, H]
  Var cells;   ///< [T, H]
};

/// Long short-term memory over packed sequences (Hochreiter & Schmidhuber 1997, with Gers' forget gate), in the form
/// that PyTorch and cuDNN have: with x_t = the row of `products` and hidden_t = W h_{t-1} + b,
///
///   i = sigmoid(x_i + hidden_i)   f = sigmoid(x_f + hidden_f)   g = tanh(x_g + hidden_g)   o = sigmoid(x_o + hidden_o)
///   c_t = f * c_{t-1} + i * g     h_t = o * tanh(c_t)
///
/// products [T, 4 H], the inputs times their weights (ops::linear, one product for all rows), gates i, f, g, o side by
/// side   weight [4 H, H]   bias [4 H] or absent   initial_state and initial_cell [N, H], each absent for zeros   all
/// f32 or all f64. Sequences walk through time as gru's do, with bits of their own. Keeps the gates and tanh(c) [T, 5
/// H], both outputs, the weight, and what is given of the initial ones. Throws ShapeError, DTypeError.
LstmResult lstm(const Var& products, const Var& weight, const Var& bias, const Var& initial_state,
                const Var& initial_cell, const Offsets& offsets);

}  // namespace tally::ops
