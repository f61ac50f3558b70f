#pragma once

#include "tally/nn/attention_kinds.h"

namespace tally::nn {

struct MultiHeadAttentionOptions {
  std::string attention = "softmax";  ///< of attention_kinds()
  AttentionSettings settings = {};
  double deviation = 0;  ///< of the projections' normal initial weights; 0 means Xavier uniform
};

/// Vaswani et al., arXiv 1706.03762, over packed sequences: queries from one tensor of rows [T, width], keys and values
/// from another (often the same), with any attention between them.
struct MultiHeadAttention {
  Linear query, key, value, output;  ///< key: without weights where keys are the queries
  AttentionKind attention;
  static void fields(auto& self, auto&& visit) {
    visit("query", self.query);
    visit("key", self.key);
    visit("value", self.value);
    visit("output", self.output);
    visit("attention", self.attention);
  }
  static MultiHeadAttention make(const MultiHeadAttentionOptions& options, RngKey key);
  Var operator()(const Var& queries, const Var& source, const Offsets& offsets, const Context& context) const;
};

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
  static void fields(auto& self, auto&& visit) {
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

struct TransformerBlockOptions {
  std::string attention = "softmax";  ///< of attention_kinds()
  AttentionSettings settings = {};    ///< of the attention, the width among them
  std::int64_t inner = 0;             ///< of the feed-forward part; 0 means the width
  ops::Activation activation = ops::Activation::relu;
  double hidden_dropout = 0;
  double deviation = 0;
  double epsilon = 1e-5;
  NormPlacement norm = NormPlacement::pre;
};

/// Causal self-attention and a feed-forward part, each with residual, norm and dropout.
struct TransformerBlock {
  LayerNorm attention_norm, feed_forward_norm;
  MultiHeadAttention attention;
  FeedForward feed_forward;
  Dropout dropout;
  NormPlacement norm = NormPlacement::pre;
  static void fields(auto& self, auto&& visit) {
    visit("attention_norm", self.attention_norm);
    visit("feed_forward_norm", self.feed_forward_norm);
    visit("attention", self.attention);
    visit("feed_forward", self.feed_forward);
    visit("dropout", self.dropout);
    visit("norm", self.norm);
  }
  static TransformerBlock make(const TransformerBlockOptions& options, RngKey key);
  Var operator()(const Var& x, const Offsets& offsets, const Context& context) const;
};

}  // namespace tally::nn
