#pragma once

#include <string>

#include "tally/core/options/options.h"
#include "tally/nn/attention/attention.h"
#include "tally/nn/layers.h"
#include "tally/ops/attention/linear_attention_memory.h"

namespace tally::nn {

struct GatedSlotOptions {
  std::int64_t slots = 64;
  double damping = 8;
  static void keys(auto& o, auto&& key) {
    key("slots", o.slots, at_least(1), "M, slots of each head's memory, which a softmax reads");
    key("gate_logit_normalizer", o.damping, above(0), "a slot keeps sigmoid(W x)^(1 / this) of what it holds");
  }
};

/// Gated slot attention (Zhang et al., arXiv 2409.07146). Each head keeps M slots, of a key and a value each, that a
/// row forgets and writes in shares of its own; the query meets the slots as softmax attention meets rows:
///
///   q, k, v = silu(W x)   a_t = sigmoid(W_a x_t)^(1 / 8) [M]   w_t = 1 - a_t
///   K_t = diag(a_t) K_(t-1) + w_t k_t^T   V_t = diag(a_t) V_(t-1) + w_t v_t^T
///   y_t = W_o RmsNorm(silu(V_t^T softmax(K_t q_t)))
///
/// Both memories are ops::linear_attention by the rule gated, whose decays run along the values for K (its values are
/// w, its sums K^T) and along the keys for V; no product of decays is divided by. Time and memory are linear in the
/// rows, and events take constant time. As released: scores are not scaled, the norm is over all heads together, W_a
/// has no bias, and there is no gate of the output. W_q, W_k, W_v and W_o have biases, as all kinds' here.
struct GatedSlotKind {
  Linear query, key, value, output;
  Linear decay;  ///< W_a [heads * M, width]
  RmsNorm norm;  ///< [width]
  std::int64_t heads = 1;
  double damping = 8;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("query", self.query);
    visit("key", self.key);
    visit("value", self.value);
    visit("output", self.output);
    visit("decay", self.decay);
    visit("norm", self.norm);
    visit("heads", self.heads);
    visit("damping", self.damping);
  }
  /// Throws ValueError for a bidirectional mask.
  static GatedSlotKind make(const GatedSlotOptions& options, const AttentionSettings& settings, RngKey key);

  Var operator()(const Var& queries, const Var& source, const Sequence& sequence, const Context& context) const;
  std::string layout() const;

  /// Both memories in double: their size does not depend on the history.
  struct State {
    ops::LinearAttentionMemory keys, values;  ///< [d, M] and [M, d] of each head

    std::size_t heap_bytes() const;
    void save(std::string& to) const;
    void load(ByteReader& bytes, std::int64_t events);
  };
  State initial_state() const;
  Var step(State& state, const Var& query, const Var& source, const Event& event) const;

 private:
  std::int64_t slots() const { return decay.weight.shape()[0] / heads; }
  /// log a [T, heads * M].
  Var log_decays(const Var& source) const;
  Var ended(const Var& read) const;
};

}  // namespace tally::nn
