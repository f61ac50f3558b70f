#pragma once

#include <string>

#include "tally/core/options/options.h"
#include "tally/nn/attention/attention.h"
#include "tally/nn/attention/position_softmax.h"
#include "tally/nn/layers.h"

namespace tally::nn {

struct MemoryContextsOptions {
  std::int64_t contexts = 32;
  static void keys(auto& o, auto&& key) {
    key("memory_contexts", o.contexts, at_least(1), "K, contexts that each head writes its history into");
  }
};

/// The fixed-size memory of Britz, Guan & Luong 2017 (D17-1040) as an attention. Each head writes its values into K
/// contexts, by shares that a row divides among them, and reads the contexts alone:
///
///   a_j = softmax_K(W_a x_j)    b_t = softmax_K(W_b q_t)    C_tk = sum_j a_jk v_j / sum_j a_jk
///   out = W_o sum_k b_tk C_tk
///
/// over the visible rows j. A context is divided by what was written to it, so that it is a mean of values whose size
/// does not grow with the history; the paper, which reads at the end of a sentence, has the sums. Its weights of
/// positions need the length, which is not known up to a row: they are left out.
struct FixedMemoryKind {
  Linear memory;  ///< W_a [heads * K, width]
  Linear read;    ///< W_b [heads * K, width]
  Linear value, output;
  std::int64_t heads = 1;
  ops::AttentionMask mask = ops::AttentionMask::causal;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("memory", self.memory);
    visit("read", self.read);
    visit("value", self.value);
    visit("output", self.output);
    visit("heads", self.heads);
    visit("mask", self.mask);
  }
  static FixedMemoryKind make(const MemoryContextsOptions& options, const AttentionSettings& settings, RngKey key);
  Var operator()(const Var& queries, const Var& source, const Sequence& sequence, const Context& context) const;
  std::string layout() const;

  using State = PositionSoftmaxMemory;
  bool has_state() const { return mask == ops::AttentionMask::causal; }
  State initial_state() const;
  Var step(State& state, const Var& query, const Var& source, const Event& event) const;
};

}  // namespace tally::nn
