#pragma once

#include <string>

#include "tally/core/options/option_tables.h"
#include "tally/nn/attention/attention.h"
#include "tally/nn/attention/position_softmax.h"

namespace tally::nn {

/// Efficient attention (Shen et al., arXiv 1812.01243), a core of MultiHead: softmax(q) over the features of a head
/// reads sum_j softmax(k)_j v_j^T, whose softmax is over the visible positions, feature by feature. The weights of a
/// row's values are positive and sum to 1. The paper sees whole sequences; in the causal form a row's softmax is over
/// the positions up to it.
struct EfficientCore {
  static constexpr bool kSharesQueries = false;
  std::int64_t width = 0;  ///< of queries, keys and values, all heads together
  std::int64_t heads = 1;
  ops::AttentionMask mask = ops::AttentionMask::causal;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("width", self.width);
    visit("heads", self.heads);
    visit("mask", self.mask);
  }
  static EfficientCore make(const NoOptions&, const AttentionSettings& settings, RngKey) {
    return {settings.width, settings.heads, settings.mask};
  }
  Var operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence, const Context&) const {
    return ops::position_softmax_attention(softmax_of_heads(q, heads), k, v, sequence.offsets,
                                           {.heads = heads, .mask = mask});
  }
  std::string layout() const { return " of " + std::to_string(heads) + " heads"; }

  using State = PositionSoftmaxMemory;
  bool has_state() const { return mask == ops::AttentionMask::causal; }
  State initial_state() const { return {ops::position_softmax_state(heads, width / heads, width / heads)}; }
  Var step(State& state, const Var& q, const Var& k, const Var& v, const Event&) const {
    return state.step(softmax_of_heads(q, heads), k, v);
  }
};

}  // namespace tally::nn
