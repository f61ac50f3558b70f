#pragma once

#include "tally/nn/layers.h"

namespace tally::nn {

struct GruOptions {
  std::int64_t in = 0;
  std::int64_t width = 0;  ///< of the state
};

/// One layer of gated recurrent units over packed sequences (ops/recurrent/gru.h), with the weights of torch.nn.GRU:
/// gates r, z, n, all initial values uniform in +-1 / sqrt(width).
struct Gru {
  Linear input;             ///< weight [3 width, in], bias [3 width]
  Parameter hidden_weight;  ///< [3 width, width]
  Parameter hidden_bias;    ///< [3 width]
  static constexpr void fields(auto& self, auto&& visit) {
    visit("input", self.input);
    visit("hidden_weight", self.hidden_weight);
    visit("hidden_bias", self.hidden_bias);
  }
  static Gru make(const GruOptions& options, RngKey key);
  /// x [T, in] to the states [T, width]; `initial` [N, width], or absent for zeros.
  Var operator()(const Var& x, const Offsets& offsets, const Var& initial = {}) const;
};

}  // namespace tally::nn
