#include "tally/nn/attention/gated_slot.h"

#include <algorithm>
#include <cmath>

#include "tally/nn/attention/position_softmax.h"
#include "tally/ops/elementwise/elementwise.h"

namespace tally::nn {
namespace {

constexpr ops::Activation kActivation = ops::Activation::silu;

ops::LinearAttentionOptions slot_options(std::int64_t heads, ops::DecayAlong along) {
  return {.heads = heads, .rule = ops::UpdateRule::gated, .decay_along = along, .scale = 1, .final_state = false};
}

/// What a row writes of itself: 1 - a, without cancellation where a is nearly 1.
Var shares_written(const Var& log_decays) { return -ops::expm1(log_decays); }

/// The row of an event, by its memory.
Var read_slots(ops::LinearAttentionMemory& memory, const Var& q, const Var& k, const Var& v, const Var& log_decays,
               std::int64_t heads, ops::DecayAlong along) {
  const auto row = [](const Var& x) { return x.value().contiguous(); };
  const Tensor asked = row(q), written = row(k), values = row(v), decays = row(log_decays);
  Tensor read(values.shape());
  ops::linear_attention_step(memory, asked.span<float>(), written.span<float>(), values.span<float>(),
                             decays.span<float>(), {}, read.mutable_span<float>(), slot_options(heads, along));
  return Var(read);
}

}  // namespace

GatedSlotKind GatedSlotKind::make(const GatedSlotOptions& options, const AttentionSettings& settings, RngKey key) {
  check<ValueError>(settings.mask == ops::AttentionMask::causal, "gated_slot attention",
                    "needs a causal mask: what its slots hold depends on the order of rows");
  check<ValueError>(options.slots >= 1 && options.damping > 0, "gated_slot attention",
                    "needs at least one slot and a normalizer above 0; got ", options.slots, " and ", options.damping);
  const auto projection = [&](std::string_view name, std::int64_t out, bool bias) {
    return Linear::make({.in = settings.width, .out = out, .bias = bias, .deviation = settings.deviation},
                        key.fold_in(name));
  };
  return {.query = projection("query", settings.width, true),
          .key = projection("key", settings.width, true),
          .value = projection("value", settings.width, true),
          .output = projection("output", settings.width, true),
          .decay = projection("decay", settings.heads * options.slots, false),
          .norm = RmsNorm::make({.width = settings.width}),
          .heads = settings.heads,
          .damping = options.damping};
}

Var GatedSlotKind::log_decays(const Var& source) const { return ops::softplus(-decay(source)) * (-1 / damping); }

Var GatedSlotKind::ended(const Var& read) const { return output(norm(ops::silu(read))); }

Var GatedSlotKind::operator()(const Var& queries, const Var& source, const Sequence& sequence, const Context&) const {
  const Var decays = log_decays(source), shares = shares_written(decays);
  const auto read = [&](const Var& q, const Var& k, const Var& v, ops::DecayAlong along) {
    return ops::linear_attention({.q = q, .k = k, .v = v, .log_decay = decays}, sequence.offsets,
                                 slot_options(heads, along))
        .output;
  };
  const Var scores = read(query(queries, kActivation), key(source, kActivation), shares, ops::DecayAlong::values);
  return ended(read(softmax_of_heads(scores, heads), shares, value(source, kActivation), ops::DecayAlong::keys));
}

std::string GatedSlotKind::layout() const {
  return tally::detail::join(" of ", heads, " heads, ", slots(), " slots, normalizer ", damping);
}

std::size_t GatedSlotKind::State::heap_bytes() const {
  return (keys.sums.capacity() + values.sums.capacity()) * sizeof(double);
}

void GatedSlotKind::State::save(std::string& to) const {
  for (const ops::LinearAttentionMemory* each : {&keys, &values}) write_values(to, std::span<const double>(each->sums));
}

void GatedSlotKind::State::load(ByteReader& bytes, std::int64_t) {
  for (ops::LinearAttentionMemory* each : {&keys, &values}) {
    bytes.read(std::span(each->sums));
    check<IoError>(std::all_of(each->sums.begin(), each->sums.end(), [](double x) { return std::isfinite(x); }),
                   "gated_slot attention", "the saved state has a number that is not finite");
  }
}

GatedSlotKind::State GatedSlotKind::initial_state() const {
  const std::int64_t d = norm.weight.shape()[0] / heads;
  return {ops::linear_attention_memory(heads, d, slots()), ops::linear_attention_memory(heads, slots(), d)};
}

Var GatedSlotKind::step(State& state, const Var& queries, const Var& source, const Event&) const {
  const Var decays = log_decays(source), shares = shares_written(decays);
  const Var scores = read_slots(state.keys, query(queries, kActivation), key(source, kActivation), shares, decays,
                                heads, ops::DecayAlong::values);
  return ended(read_slots(state.values, softmax_of_heads(scores, heads), shares, value(source, kActivation), decays,
                          heads, ops::DecayAlong::keys));
}

}  // namespace tally::nn
