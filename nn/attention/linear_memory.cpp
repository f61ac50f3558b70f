#include "tally/nn/attention/linear_memory.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <utility>

#include "tally/nn/attention/heads.h"
#include "tally/nn/initializers.h"
#include "tally/ops/attention/feature_map.h"
#include "tally/ops/attention/rotary.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/recurrent/causal_conv1d.h"

namespace tally::nn {
namespace {

/// Columns between a row and its channels' decays, and what those are divided by: GLA's.
constexpr std::int64_t kDecayRank = 16;
constexpr double kChannelDivisor = 16;

/// x with softplus(x) = y.
double softplus_inverse(double y) { return std::log(std::expm1(y)); }

/// f32 [count] numbers of the heads.
Parameter of_heads(std::int64_t count, const std::function<double(std::int64_t)>& number) {
  Tensor values({count});
  for (std::int64_t h = 0; h < count; ++h) values.mutable_data<float>()[h] = static_cast<float>(number(h));
  return Parameter(std::move(values));
}

Parameter convolution_taps(std::int64_t width, std::int64_t taps, RngKey key) {
  Tensor weight({width, taps});
  const double bound = 1 / std::sqrt(static_cast<double>(taps));
  fill_uniform(key, weight, -bound, bound);
  return Parameter(std::move(weight));
}

}  // namespace

LinearMemoryParts retnet_parts() {
  return {.rule = ops::UpdateRule::gated, .decay = DecayBy::retention, .rotary = true, .gate = OutputGate::silu};
}

LinearMemoryParts lightning_parts() {
  return {.rule = ops::UpdateRule::gated, .decay = DecayBy::slopes, .silu = true, .gate = OutputGate::sigmoid};
}

LinearMemoryParts gla_parts() {
  return {.rule = ops::UpdateRule::gated, .decay = DecayBy::channel, .gate = OutputGate::silu};
}

LinearMemoryParts deltanet_parts(const GatedDeltaOptions& options) {
  return {.rule = ops::UpdateRule::delta, .silu = true, .unit = true, .gain = true, .taps = options.taps};
}

LinearMemoryParts gated_deltanet_parts(const GatedDeltaOptions& options) {
  LinearMemoryParts parts = deltanet_parts(options);
  parts.rule = ops::UpdateRule::gated_delta;
  parts.decay = DecayBy::row;
  parts.gate = OutputGate::silu;
  return parts;
}

LinearMemoryParts time_decay_parts(const TimeDecayOptions& options) {
  return {.rule = ops::UpdateRule::gated,
          .decay = DecayBy::time,
          .silu = true,
          .gate = OutputGate::silu,
          .time_unit = options.unit,
          .time_decays = options.by_time};
}

LinearMemoryKind LinearMemoryKind::make(const LinearMemoryParts& parts, const AttentionSettings& settings, RngKey key) {
  const std::int64_t width = settings.width, heads = settings.heads, d = width / heads;
  check<ValueError>(settings.mask == ops::AttentionMask::causal, "linear memory",
                    "needs a causal mask: what it remembers depends on the order of rows");
  check<ValueError>(!parts.rotary || d % 2 == 0, "linear memory",
                    "turns pairs of columns and needs heads of an even width; got ", d);
  const auto square = [&](const char* name) {
    return Linear::make({.in = width, .out = width, .deviation = settings.deviation}, key.fold_in(name));
  };
  LinearMemoryKind kind;
  kind.query = square("query"), kind.key = square("key"), kind.value = square("value"), kind.output = square("output");
  kind.norm = RmsNorm::make({.width = d});
  kind.heads = heads;
  kind.parts = parts;
  const auto uniform = [&](const char* name, double low, double high) {
    Tensor drawn({heads});
    fill_uniform(key.fold_in(name), drawn, low, high);
    const std::vector<double> numbers = drawn.to_doubles();
    return [numbers](std::int64_t h) { return numbers[static_cast<std::size_t>(h)]; };
  };
  switch (parts.decay) {
    case DecayBy::none:
    case DecayBy::retention:
    case DecayBy::slopes:
      break;
    case DecayBy::row: {
      // As Mamba-2 begins: rates from 1 to 16, steps from 0.001 to 0.1, evenly in their logarithms.
      kind.decay = Linear::make({.in = width, .out = heads, .deviation = settings.deviation}, key.fold_in("decay"));
      const auto step = uniform("step", std::log(0.001), std::log(0.1));
      kind.decay.bias = of_heads(heads, [&](std::int64_t h) { return softplus_inverse(std::exp(step(h))); });
      const auto rate = uniform("rate", 1, 16);
      kind.decay_rate = of_heads(heads, [&](std::int64_t h) { return std::log(rate(h)); });
      break;
    }
    case DecayBy::channel:
      kind.decay_inner = Linear::make(
          {.in = width, .out = std::min(kDecayRank, width), .bias = false, .deviation = settings.deviation},
          key.fold_in("decay_inner"));
      kind.decay = Linear::make({.in = std::min(kDecayRank, width), .out = width, .deviation = settings.deviation},
                                key.fold_in("decay"));
      break;
    case DecayBy::time:
      // Half of what was written is left after 4, 16, 64, ... events, or units of time that the logarithm counts.
      kind.decay_rate = of_heads(heads, [&](std::int64_t h) {
        return softplus_inverse(std::numbers::ln2 / std::exp2(2 + 2 * static_cast<double>(h)));
      });
      if (parts.time_decays) {
        kind.time_rate = of_heads(heads, [&](std::int64_t h) {
          return softplus_inverse(std::numbers::ln2 / std::exp2(2 + 2 * static_cast<double>(h)));
        });
      }
      break;
  }
  if (parts.gain) {
    kind.gain = Linear::make({.in = width, .out = heads, .deviation = settings.deviation}, key.fold_in("gain"));
  }
  if (parts.gate != OutputGate::none) kind.gate = square("gate");
  if (parts.taps > 0) {
    kind.query_taps = convolution_taps(width, parts.taps, key.fold_in("query_taps"));
    kind.key_taps = convolution_taps(width, parts.taps, key.fold_in("key_taps"));
    kind.value_taps = convolution_taps(width, parts.taps, key.fold_in("value_taps"));
  }
  return kind;
}

ops::LinearAttentionOptions LinearMemoryKind::options() const {
  return {.heads = heads, .rule = parts.rule, .final_state = false};
}

Var LinearMemoryKind::features(const Var& projected) const {
  const Var x = parts.silu && parts.taps == 0 ? ops::silu(projected) : projected;
  return parts.unit ? ops::feature_map(x, {.heads = heads, .kind = ops::FeatureKind::unit}) : x;
}

Var LinearMemoryKind::log_decays(const Var& source, const Var& gaps) const {
  const auto constants = [&](const auto& of_head) {
    std::vector<double> all;
    for (std::int64_t h = 0; h < heads; ++h) all.push_back(of_head(static_cast<double>(h)));
    return Var(Tensor::from(all, {heads}).to(source.dtype()));
  };
  switch (parts.decay) {
    case DecayBy::none:
      return {};
    case DecayBy::retention:
      return constants([](double h) { return std::log1p(-std::exp2(-5 - h)); });
    case DecayBy::slopes:
      return constants([&](double h) { return -std::exp2(-8 * (h + 1) / static_cast<double>(heads)); });
    case DecayBy::row:
      return -(ops::exp(decay_rate) * ops::softplus(decay(source)));
    case DecayBy::channel:
      return ops::softplus(-decay(decay_inner(source))) * (-1 / kChannelDivisor);
    case DecayBy::time: {
      const Var of_events = ops::softplus(decay_rate);
      return parts.time_decays ? -(of_events + ops::softplus(time_rate) * gaps) : -of_events;
    }
  }
  fail<ValueError>("linear memory", "unknown decay");
}

Var LinearMemoryKind::gaps(const Sequence& sequence, DType dtype) const {
  if (!reads_times()) return {};
  check<ValueError>(sequence.times.defined(), "time_decay", "needs the times of events, and they are not known here");
  const std::vector<double> times = sequence.times.to_doubles();
  std::vector<double> logs(times.size());
  for (std::int64_t i = 0; i < sequence.offsets.count(); ++i) {
    const auto begin = static_cast<std::size_t>(sequence.offsets.at(i)),
               end = static_cast<std::size_t>(sequence.offsets.at(i + 1));
    for (std::size_t t = begin + 1; t < end; ++t) {
      logs[t] = std::log1p(std::max(0.0, times[t] - times[t - 1]) / parts.time_unit);
    }
  }
  return Var(Tensor::from(logs, {static_cast<std::int64_t>(logs.size()), 1}).to(dtype));
}

Var LinearMemoryKind::ended(const Var& read, const Var& queries) const {
  const Var normed = normed_heads(norm, read, heads);
  switch (parts.gate) {
    case OutputGate::none:
      return output(normed);
    case OutputGate::sigmoid:
      return output(normed * ops::sigmoid(gate(queries)));
    case OutputGate::silu:
      return output(normed * gate(queries, ops::Activation::silu));
  }
  fail<ValueError>("linear memory", "unknown gate");
}

Var LinearMemoryKind::operator()(const Var& queries, const Var& source, const Sequence& sequence,
                                 const Context&) const {
  Var q = query(queries), k = key(source), v = value(source);
  if (parts.taps > 0) {
    const auto mixed = [&](const Var& x, const Parameter& taps) {
      return ops::causal_conv1d(x, taps, {}, {}, sequence.offsets, ops::Activation::silu);
    };
    q = mixed(q, query_taps), k = mixed(k, key_taps), v = mixed(v, value_taps);
  }
  q = features(q), k = features(k);
  if (parts.rotary) {
    q = ops::rotary(q, sequence.offsets, {}, {.heads = heads});
    k = ops::rotary(k, sequence.offsets, {}, {.heads = heads});
  }
  const Var read = ops::linear_attention({.q = q,
                                          .k = k,
                                          .v = v,
                                          .log_decay = log_decays(source, gaps(sequence, q.dtype())),
                                          .gain = parts.gain ? ops::sigmoid(gain(source)) : Var()},
                                         sequence.offsets, options())
                       .output;
  return ended(read, queries);
}

std::string LinearMemoryKind::layout() const {
  std::string words = tally::detail::join(" of ", heads, " heads, rule ", word_of(parts.rule));
  if (parts.decay == DecayBy::time) words += tally::detail::join(", time in units of ", parts.time_unit);
  return words;
}

std::size_t LinearMemoryKind::State::heap_bytes() const {
  std::size_t bytes = memory.sums.capacity() * sizeof(double) + recent.capacity() * sizeof(ops::ConvolutionState);
  for (const ops::ConvolutionState& each : recent) bytes += each.rows.capacity() * sizeof(float);
  return bytes;
}

void LinearMemoryKind::State::save(std::string& to) const {
  write_values(to, std::span<const double>(memory.sums));
  for (const ops::ConvolutionState& each : recent) write_values(to, std::span<const float>(each.rows));
  write_values(to, std::span<const double>(&time, 1));
}

void LinearMemoryKind::State::load(ByteReader& bytes, std::int64_t) {
  const auto finite = [](auto x) { return std::isfinite(x); };
  bytes.read(std::span(memory.sums));
  bool good = std::all_of(memory.sums.begin(), memory.sums.end(), finite);
  for (ops::ConvolutionState& each : recent) {
    bytes.read(std::span(each.rows));
    good = good && std::all_of(each.rows.begin(), each.rows.end(), finite);
  }
  bytes.read(std::span(&time, 1));
  check<IoError>(good && std::isfinite(time), "linear memory", "the saved state has a number that is not finite");
}

LinearMemoryKind::State LinearMemoryKind::initial_state() const {
  const std::int64_t d = norm.weight.shape()[0];
  State state;
  state.memory = ops::linear_attention_memory(heads, d, d);
  if (parts.taps == 0) return state;
  auto readers = std::make_shared<std::vector<ops::ConvolutionReader>>();
  for (const Parameter* taps : {&query_taps, &key_taps, &value_taps}) {
    readers->emplace_back(taps->value(), Tensor(), ops::Activation::silu);
    state.recent.push_back(readers->back().initial_state());
  }
  state.convolutions = std::move(readers);
  return state;
}

Var LinearMemoryKind::step(State& state, const Var& queries, const Var& source, const Event& event) const {
  Var q = query(queries), k = key(source), v = value(source);
  if (parts.taps > 0) {
    std::size_t i = 0;
    for (Var* const x : {&q, &k, &v}) {
      const Tensor row = x->value().contiguous();
      Tensor mixed(row.shape());
      (*state.convolutions)[i].step(state.recent[i], row.span<float>(), mixed.mutable_span<float>());
      *x = Var(mixed);
      ++i;
    }
  }
  Var gap;
  if (reads_times()) {
    check<ValueError>(std::isfinite(event.time), "time_decay", "needs the time of each event, and it is not known");
    const double since = event.place == 0 ? 0 : std::max(0.0, event.time - state.time);
    gap = Var(Tensor::from<float>({static_cast<float>(std::log1p(since / parts.time_unit))}, {1, 1}));
    state.time = event.time;
  }
  q = features(q), k = features(k);
  if (parts.rotary) {
    const Tensor place = Tensor::from<std::int64_t>({event.place}, {1});
    q = ops::rotary(q, place, {.heads = heads});
    k = ops::rotary(k, place, {.heads = heads});
  }
  const auto row = [](const Var& x) { return x.defined() ? x.value().contiguous() : Tensor({0}); };
  const Tensor asked = row(q), written = row(k), values = row(v), decays = row(log_decays(source, gap)),
               gains = row(parts.gain ? ops::sigmoid(gain(source)) : Var());
  Tensor read(values.shape());
  ops::linear_attention_step(state.memory, asked.span<float>(), written.span<float>(), values.span<float>(),
                             decays.span<float>(), gains.span<float>(), read.mutable_span<float>(), options());
  return ended(Var(read), queries);
}

}  // namespace tally::nn
