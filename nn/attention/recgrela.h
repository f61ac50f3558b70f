#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tally/core/options/options.h"
#include "tally/nn/attention/attention.h"
#include "tally/nn/layers.h"
#include "tally/ops/recurrent/convolution_state.h"

namespace tally::nn {

struct RecGrelaOptions {
  std::int64_t taps = 4;
  ops::Activation activation = ops::Activation::none;
  static void keys(auto& o, auto&& key) {
    key("shortcut_kernel", o.taps, at_least(1), "rows of the local shortcut, a row's own among them");
    key("shortcut_act", o.activation, among<ops::Activation>({"none", "silu"}),
        "activation of the local shortcut: the released code has `silu` in its fast kernel and `none` in its other");
  }
};

/// RecGRELA's gated rotary linear attention with a local shortcut (arXiv 2506.13315, its released code):
///
///   u = x W_u,  q = elu(u W_q) + 1,  k = elu(u W_k) + 1,  values u themselves
///   y_t = R_t(q_t) . sum_j R_j(k_j) u_j^T / q_t . sum_j k_j      head by head; R turns pairs of the whole row's
///   columns out = ((y + conv(u)) * silu(x W_g)) W_o                      conv: depthwise, over the last
///   `shortcut_kernel` rows
///
/// The released code sums over whole windows; here j is what the mask lets a row see. Turned keys can point anywhere,
/// so y_t may have any sign; the denominator is positive, and has a floor of 1e-6 of the product of its sides' sums.
struct RecGrelaKind {
  Linear input, query, key, gate, output;
  Parameter shortcut_weight, shortcut_bias;  ///< [width, taps] and [width]
  std::int64_t heads = 1;
  ops::AttentionMask mask = ops::AttentionMask::causal;
  ops::Activation shortcut_activation = ops::Activation::none;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("input", self.input);
    visit("query", self.query);
    visit("key", self.key);
    visit("gate", self.gate);
    visit("output", self.output);
    visit("shortcut_weight", self.shortcut_weight);
    visit("shortcut_bias", self.shortcut_bias);
    visit("heads", self.heads);
    visit("mask", self.mask);
    visit("shortcut_activation", self.shortcut_activation);
  }
  static RecGrelaKind make(const RecGrelaOptions& options, const AttentionSettings& settings, RngKey key);

  Var operator()(const Var& queries, const Var& source, const Sequence& sequence, const Context& context) const;
  std::string layout() const;

  /// Sums over all events, in double, and the last rows of the shortcut: their size does not depend on the history.
  struct State {
    std::vector<double> products;  ///< [heads, d, d] of turned keys and values
    std::vector<double> keys;      ///< [width] of keys that are not turned
    ops::ConvolutionState recent;
    std::shared_ptr<const ops::ConvolutionReader> shortcut;  ///< shared by all states of a kind; not counted

    std::size_t heap_bytes() const;
    void save(std::string& to) const;
    void load(ByteReader& bytes, std::int64_t events);
  };
  bool has_state() const { return mask == ops::AttentionMask::causal; }
  State initial_state() const;
  Var step(State& state, const Var& queries, const Var& source, const Event& event) const;
};

}  // namespace tally::nn
