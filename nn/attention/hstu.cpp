#include "tally/nn/attention/hstu.h"

#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/norms/layer_norm.h"

namespace tally::nn {

HstuKind HstuKind::make(const HstuOptions& options, const AttentionSettings& settings, RngKey key) {
  const bool by_window = options.normalizer == ops::PointwiseNormalizer::window;
  check<ValueError>(!by_window || settings.max_length >= 1, "hstu attention",
                    "needs a longest length for the normalizer window");
  const auto projection = [&](std::string_view name, bool bias) {
    return Linear::make({.in = settings.width, .out = settings.width, .bias = bias, .deviation = settings.deviation},
                        key.fold_in(name));
  };
  return {.query = projection("query", false),
          .key = projection("key", false),
          .value = projection("value", false),
          .gate = projection("gate", false),
          .output = projection("output", true),
          .heads = settings.heads,
          .mask = settings.mask,
          .window = by_window ? settings.max_length : 0};
}

Var HstuKind::operator()(const Var& queries, const Var& source, const Sequence& sequence, const Context&) const {
  constexpr auto silu = ops::Activation::silu;
  const Var found = ops::pointwise_attention(
      query(queries, silu), key(source, silu), value(source, silu), sequence.offsets,
      {.heads = heads,
       .mask = mask,
       .normalizer = window > 0 ? ops::PointwiseNormalizer::window : ops::PointwiseNormalizer::visible,
       .window = window});
  // The epsilon of the released code: what a row finds may be small.
  return output(ops::layer_norm(found, {}, {}, {.epsilon = 1e-6}) * gate(queries, silu));
}

std::string HstuKind::layout() const { return tally::detail::join(" of ", heads, " heads, window ", window); }

}  // namespace tally::nn
