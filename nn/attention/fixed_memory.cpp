#include "tally/nn/attention/fixed_memory.h"

namespace tally::nn {

FixedMemoryKind FixedMemoryKind::make(const MemoryContextsOptions& options, const AttentionSettings& settings,
                                      RngKey key) {
  check<ValueError>(options.contexts >= 1, "fixed_memory attention", "needs at least one context; got ",
                    options.contexts);
  const auto projection = [&](std::string_view name, std::int64_t out, bool bias) {
    return Linear::make({.in = settings.width, .out = out, .bias = bias, .deviation = settings.deviation},
                        key.fold_in(name));
  };
  const std::int64_t contexts = settings.heads * options.contexts;
  return {.memory = projection("memory", contexts, false),
          .read = projection("read", contexts, false),
          .value = projection("value", settings.width, true),
          .output = projection("output", settings.width, true),
          .heads = settings.heads,
          .mask = settings.mask};
}

Var FixedMemoryKind::operator()(const Var& queries, const Var& source, const Sequence& sequence, const Context&) const {
  // A share over the sum of shares is the softmax, over positions, of its logarithm.
  return output(ops::position_softmax_attention(softmax_of_heads(read(queries), heads),
                                                log_softmax_of_heads(memory(source), heads), value(source),
                                                sequence.offsets, {.heads = heads, .mask = mask}));
}

std::string FixedMemoryKind::layout() const {
  return tally::detail::join(" of ", heads, " heads, ", memory.weight.shape()[0] / heads, " contexts");
}

FixedMemoryKind::State FixedMemoryKind::initial_state() const {
  return {ops::position_softmax_state(heads, memory.weight.shape()[0] / heads, output.weight.shape()[0] / heads)};
}

Var FixedMemoryKind::step(State& state, const Var& query, const Var& source, const Event&) const {
  return output(
      state.step(softmax_of_heads(read(query), heads), log_softmax_of_heads(memory(source), heads), value(source)));
}

}  // namespace tally::nn
