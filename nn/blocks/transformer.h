#pragma once

#include <functional>
#include <string>

#include "tally/core/words.h"
#include "tally/nn/attention/attention_kinds.h"
#include "tally/nn/layers.h"

namespace tally::nn {

struct FeedForwardOptions {
  std::int64_t width = 0;
  std::int64_t inner = 0;
  ops::Activation activation = ops::Activation::relu;
  double dropout = 0;  ///< after the activation
  double deviation = 0;
};

/// Two linear maps with an activation and dropout between them, row by row.
struct FeedForward {
  Linear inner, outer;
  ops::Activation activation = ops::Activation::relu;
  Dropout dropout;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("inner", self.inner);
    visit("outer", self.outer);
    visit("activation", self.activation);
    visit("dropout", self.dropout);
  }
  static FeedForward make(const FeedForwardOptions& options, RngKey key);
  Var operator()(const Var& x, const Context& context) const;
};

/// Where a block normalises.
enum class NormPlacement {
  pre,     ///< x + f(norm(x))
  post,    ///< norm(x + f(x))
  sasrec,  ///< the released SASRec: q = norm(x); y = q + attention(q; x); z = norm(y); z + feed_forward(z)
};
constexpr auto words(NormPlacement) {
  using W = Word<NormPlacement>;
  return std::array{W{"sasrec", NormPlacement::sasrec}, W{"pre", NormPlacement::pre}, W{"post", NormPlacement::post}};
}

struct TransformerBlockOptions {
  AttentionChoice attention{attention_kinds(), "softmax"};
  AttentionSettings settings = {};  ///< of the attention, the width among them; its deviation is that below
  std::int64_t inner = 0;           ///< of the feed-forward part; 0 means the width
  ops::Activation activation = ops::Activation::relu;
  double hidden_dropout = 0;
  double drop_path = 0;  ///< of the attention's branch
  double deviation = 0;
  double epsilon = 1e-5;
  NormPlacement norm = NormPlacement::pre;
};

/// Self-attention and a feed-forward part, each with residual, norm and dropout.
struct TransformerBlock {
  LayerNorm attention_norm, feed_forward_norm;
  Attention attention;
  FeedForward feed_forward;
  Dropout dropout;
  DropPath drop_path;  ///< of what the attention adds
  NormPlacement norm = NormPlacement::pre;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("attention_norm", self.attention_norm);
    visit("feed_forward_norm", self.feed_forward_norm);
    visit("attention", self.attention);
    visit("feed_forward", self.feed_forward);
    visit("dropout", self.dropout);
    visit("drop_path", self.drop_path);
    visit("norm", self.norm);
  }
  static TransformerBlock make(const TransformerBlockOptions& options, RngKey key);
  Var operator()(const Var& x, const Sequence& sequence, const Context& context) const;

  /// With another way to its attention: given queries and source rows, [T, width].
  using Attend = std::function<Var(const Var& queries, const Var& source)>;
  Var around(const Attend& attend, const Var& x, const Context& context) const;

  bool reads_times() const { return attention.reads_times(); }

  /// The recurrent form, where the attention has one: an event's row [1, width] to its output, that of the call above.
  using State = AttentionState;
  bool has_state() const { return attention.has_state(); }
  State initial_state() const { return attention.initial_state(); }
  Var step(State& state, const Var& x, const Event& event) const;
  /// Settings in words that no tensor shows.
  std::string layout() const;
};

}  // namespace tally::nn
