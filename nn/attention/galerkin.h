#pragma once

#include <string>

#include "tally/core/options/options.h"
#include "tally/nn/attention/attention.h"
#include "tally/nn/attention/multi_head.h"

namespace tally::nn {

struct GalerkinOptions {
  double gain = 1e-2;
  double diagonal = 1e-2;
  static void keys(auto& o, auto&& key) {
    key("galerkin_init_gain", o.gain, at_least(0),
        "of the Xavier uniform initial weights of queries, keys and values: small, so that a layer begins near its "
        "residual, as products without a softmax are not bounded");
    key("galerkin_init_diagonal", o.diagonal, at_least(0),
        "added to the diagonals of those weights: queries, keys and values begin alike, not at random");
  }
};

/// Galerkin attention (Cao, arXiv 2105.14995), a core of MultiHead: no softmax, but a layer norm of each head of keys
/// and values with learned weight and bias,
///
///   out = Q (LN(K)^T LN(V)) / n
///
/// n the number of visible rows. The paper sees whole sequences; in the causal form the sums are over the rows up to a
/// row, divided by their number.
struct GalerkinCore {
  static constexpr bool kSharesQueries = false;
  std::int64_t width = 0;  ///< of queries, keys and values, all heads together
  std::int64_t heads = 1;
  ops::AttentionMask mask = ops::AttentionMask::causal;
  Parameter key_weight, key_bias, value_weight, value_bias;  ///< [width] of the layer norms
  static constexpr void fields(auto& self, auto&& visit) {
    visit("width", self.width);
    visit("heads", self.heads);
    visit("mask", self.mask);
    visit("key_weight", self.key_weight);
    visit("key_bias", self.key_bias);
    visit("value_weight", self.value_weight);
    visit("value_bias", self.value_bias);
  }
  static GalerkinCore make(const AttentionSettings& settings);
  Var operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence, const Context& context) const;
  std::string layout() const { return " of " + std::to_string(heads) + " heads"; }

  using State = SumsState;  ///< [heads, d, d] of LN(k) LN(v)^T
  bool has_state() const { return mask == ops::AttentionMask::causal; }
  State initial_state() const { return {std::vector<double>(static_cast<std::size_t>(width * (width / heads)))}; }
  Var step(State& state, const Var& q, const Var& k, const Var& v, const Event& event) const;
};

/// With its projections, which begin as the options say.
MultiHead<GalerkinCore> make_galerkin(const GalerkinOptions& options, const AttentionSettings& settings, RngKey key);

}  // namespace tally::nn
