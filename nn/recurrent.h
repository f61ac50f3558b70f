#pragma once

#include "tally/nn/layers.h"
#include "tally/ops/recurrent/lstm.h"

namespace tally::nn {

struct GruOptions {
  std::int64_t in = 0;
  std::int64_t width = 0;  ///< of the state
  bool linear_before_reset = true;
  bool bias = true;
};

/// One layer of gated recurrent units over packed sequences (ops/recurrent/gru.h), with the weights of torch.nn.GRU:
/// gates r, z, n, all initial values uniform in +-1 / sqrt(width). Without `linear_before_reset` it is the paper's.
struct Gru {
  Linear input;             ///< weight [3 width, in], bias [3 width] or absent
  Parameter hidden_weight;  ///< [3 width, width]
  Parameter hidden_bias;    ///< [3 width] or absent
  bool linear_before_reset = true;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("input", self.input);
    visit("hidden_weight", self.hidden_weight);
    visit("hidden_bias", self.hidden_bias);
    visit("linear_before_reset", self.linear_before_reset);
  }
  static Gru make(const GruOptions& options, RngKey key);
  /// x [T, in] to the states [T, width]; `initial` [N, width], or absent for zeros.
  Var operator()(const Var& x, const Offsets& offsets, const Var& initial = {}) const;
};

/// Two of them, one of which reads each sequence from its end: torch.nn.GRU(bidirectional=True).
struct BidirectionalGru {
  Gru forward, backward;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("forward", self.forward);
    visit("backward", self.backward);
  }
  static BidirectionalGru make(const GruOptions& options, RngKey key);
  /// x [T, in] to [T, 2 width]: the states of both at each row, forward ones first.
  Var operator()(const Var& x, const Offsets& offsets) const;
};

struct LstmOptions {
  std::int64_t in = 0;
  std::int64_t width = 0;  ///< of the state
};

/// One layer of long short-term memory over packed sequences (ops/recurrent/lstm.h), with the weights of torch.nn.LSTM:
/// gates i, f, g, o, all initial values uniform in +-1 / sqrt(width).
struct Lstm {
  Linear input;             ///< weight [4 width, in], bias [4 width]
  Parameter hidden_weight;  ///< [4 width, width]
  Parameter hidden_bias;    ///< [4 width]
  static constexpr void fields(auto& self, auto&& visit) {
    visit("input", self.input);
    visit("hidden_weight", self.hidden_weight);
    visit("hidden_bias", self.hidden_bias);
  }
  static Lstm make(const LstmOptions& options, RngKey key);
  /// x [T, in] to states and cells [T, width]; initial ones [N, width], or absent for zeros.
  ops::LstmResult operator()(const Var& x, const Offsets& offsets, const Var& initial_state = {},
                             const Var& initial_cell = {}) const;
};

}  // namespace tally::nn
