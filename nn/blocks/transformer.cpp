#include "tally/nn/blocks/transformer.h"

#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/norms/residual_dropout_norm.h"

namespace tally::nn {

FeedForward FeedForward::make(const FeedForwardOptions& options, RngKey key) {
  return {.inner = Linear::make({.in = options.width, .out = options.inner, .deviation = options.deviation},
                                key.fold_in("inner")),
          .outer = Linear::make({.in = options.inner, .out = options.width, .deviation = options.deviation},
                                key.fold_in("outer")),
          .activation = options.activation,
          .dropout = {options.dropout}};
}

Var FeedForward::operator()(const Var& x, const Context& context) const {
  return outer(dropout(inner(x, activation), context.at("dropout")));
}

TransformerBlock TransformerBlock::make(const TransformerBlockOptions& options, RngKey key) {
  const std::int64_t width = options.settings.width;
  const std::int64_t inner = options.inner > 0 ? options.inner : width;
  AttentionSettings settings = options.settings;
  settings.deviation = options.deviation;
  return {.attention_norm = LayerNorm::make({width, options.epsilon}),
          .feed_forward_norm = LayerNorm::make({width, options.epsilon}),
          .attention = make_attention(options.attention, settings, key.fold_in("attention")),
          .feed_forward = FeedForward::make({.width = width,
                                             .inner = inner,
                                             .activation = options.activation,
                                             .dropout = options.hidden_dropout,
                                             .deviation = options.deviation},
                                            key.fold_in("feed_forward")),
          .dropout = {options.hidden_dropout},
          .drop_path = {options.drop_path},
          .norm = options.norm};
}

Var TransformerBlock::around(const Attend& attend, const Var& x, const Context& context) const {
  const Context in_feed_forward = context.at("feed_forward");
  const Context after_attention = context.at("attention_dropout"),
                after_feed_forward = context.at("feed_forward_dropout");
  // The end of the attention half and the norm before or after it in one pass: {norm(sum), sum = residual +
  // dropout(branch)}.
  const auto end_attention = [&](const Var& branch, const Var& residual, const LayerNorm& ending,
                                 const Dropout& dropped) {
    return ops::residual_dropout_norm(branch, residual, ending.weight, ending.bias,
                                      {.epsilon = ending.epsilon, .dropout = dropped.options(after_attention)});
  };
  switch (norm) {
    case NormPlacement::sasrec: {
      const Var q = attention_norm(x);
      const Var z = end_attention(attend(q, x), q, feed_forward_norm, Dropout{}).normalized;
      return z + dropout(feed_forward(z, in_feed_forward), after_feed_forward);
    }
    case NormPlacement::pre: {
      const Var q = attention_norm(x);
      const auto [z, y] = end_attention(attend(q, q), x, feed_forward_norm, dropout);
      return y + dropout(feed_forward(z, in_feed_forward), after_feed_forward);
    }
    case NormPlacement::post: {
      const Var y = end_attention(attend(x, x), x, attention_norm, dropout).normalized;
      return feed_forward_norm(y + dropout(feed_forward(y, in_feed_forward), after_feed_forward));
    }
  }
  fail<ValueError>("TransformerBlock", "unknown norm placement");
}

Var TransformerBlock::operator()(const Var& x, const Sequence& sequence, const Context& context) const {
  const Context in_attention = context.at("attention"), at_path = context.at("drop_path");
  return around(
      [&](const Var& queries, const Var& source) {
        return drop_path(attention(queries, source, sequence, in_attention), sequence.offsets, at_path);
      },
      x, context);
}

Var TransformerBlock::step(State& state, const Var& x, const Event& event) const {
  return around([&](const Var& query, const Var& source) { return attention.step(state, query, source, event); }, x,
                {});
}

std::string TransformerBlock::layout() const {
  return tally::detail::join(attention.layout(), ", norm ", word_of(norm), ", activation ",
                             word_of(feed_forward.activation));
}

}  // namespace tally::nn
