#include "tally/nn/attention/dispatcher.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/nn/initializers.h"
#include "tally/ops/attention/causal_dispatcher_attention.h"

namespace tally::nn {
namespace {

constexpr const char* kDispatcherAttention = "dispatcher attention";

Parameter projection(const DispatcherOptions& options, const AttentionSettings& settings, RngKey key) {
  const std::int64_t d = settings.width / settings.heads;
  const bool mixed = options.heads == ExpertHeads::mixed;
  const Shape shape = mixed ? Shape{settings.width, settings.width} : Shape{settings.heads, d, d};
  if (settings.deviation > 0) return Parameter(normal(shape, settings.deviation, key));
  // Xavier's, of the width that is mixed.
  return Parameter(normal(shape, std::sqrt(1.0 / static_cast<double>(mixed ? settings.width : d)), key));
}

}  // namespace

DispatcherKind DispatcherKind::make(const DispatcherOptions& options, const AttentionSettings& settings, RngKey key) {
  check<ValueError>(options.experts >= 1, kDispatcherAttention, "needs at least one expert; got ", options.experts);
  check<ValueError>(settings.heads >= 1 && settings.width % settings.heads == 0, kDispatcherAttention,
                    "needs a width that divides by the heads; got width ", settings.width, ", heads ", settings.heads);
  const LinearOptions square{.in = settings.width, .out = settings.width, .deviation = settings.deviation};
  return {.expert_query = Linear::make(square, key.fold_in("expert_query")),
          .key = Linear::make(square, key.fold_in("key")),
          .value = Linear::make(square, key.fold_in("value")),
          .query = Linear::make(square, key.fold_in("query")),
          .expert_key = projection(options, settings, key.fold_in("expert_key")),
          .expert_value = projection(options, settings, key.fold_in("expert_value")),
          .output = Linear::make(square, key.fold_in("output")),
          .experts = options.own_experts ? Parameter(normal({options.experts, settings.width}, options.deviation,
                                                            key.fold_in("experts")))
                                         : Parameter(),
          .heads = settings.heads,
          .mask = settings.mask};
}

const Parameter& DispatcherKind::own_experts() const {
  check<ValueError>(experts.defined(), kDispatcherAttention, "has no experts of its own: call dispatch() with some");
  return experts;
}

ops::DispatcherInputs DispatcherKind::inputs(const Var& queries, const Var& source, const Var& given) const {
  return {.expert_queries = expert_query(given),
          .keys = key(source),
          .values = value(source),
          .queries = query(queries),
          .key_projection = expert_key,
          .value_projection = expert_value};
}

DispatcherKind::Dispatched DispatcherKind::dispatch(const Var& queries, const Var& source, const Var& given,
                                                    const Sequence& sequence) const {
  const ops::DispatcherInputs in = inputs(queries, source, given);
  const ops::DispatcherOptions options{.heads = heads};
  if (mask == ops::AttentionMask::causal) {
    return {output(ops::causal_dispatcher_attention(in, sequence.offsets, options)), Var()};
  }
  const ops::DispatcherOutput dispatched = ops::dispatcher_attention(in, sequence.offsets, options);
  return {output(dispatched.output), dispatched.experts};
}

Var DispatcherKind::operator()(const Var& queries, const Var& source, const Sequence& sequence, const Context&) const {
  return dispatch(queries, source, own_experts(), sequence).output;
}

DispatcherKind::LastRead DispatcherKind::last_read(const Var& queries, const Var& source, const Var& given,
                                                   const Sequence& sequence) const {
  const Paused paused;
  const Offsets& offsets = sequence.offsets;
  const ops::DispatcherInputs in = inputs(queries, source, given);
  const Tensor gathered = ops::dispatcher_attention(in, offsets, {.heads = heads}).experts.value();
  const std::int64_t count = offsets.count(), k = gathered.dim(1), width = gathered.dim(2), d = width / heads;
  const std::vector<double> asking = in.queries.value().to_doubles(), projection = expert_key.value().to_doubles(),
                            all = gathered.to_doubles();
  const bool mixed = expert_key.value().rank() == 2;
  Tensor shares({count, heads, k}, DType::f64);
  for (std::int64_t i = 0; i < count; ++i) {
    check<ValueError>(offsets.length(i) > 0, kDispatcherAttention, "needs rows in each sequence; got none in number ",
                      i);
    const double* const row = asking.data() + (offsets.at(i + 1) - 1) * width;
    for (std::int64_t h = 0; h < heads; ++h) {
      // The projection goes to the side of the query: its columns of this head, and the rows that they read.
      const std::int64_t first = mixed ? 0 : h * d, rows = mixed ? width : d;
      std::vector<double> moved(static_cast<std::size_t>(rows));
      for (std::int64_t r = 0; r < rows; ++r) {
        const double* const from = projection.data() + (mixed ? r * width + h * d : (h * d + r) * d);
        moved[static_cast<std::size_t>(r)] = std::inner_product(from, from + d, row + h * d, 0.0);
      }
      const std::span<double> read = shares.mutable_span<double>().subspan(
          static_cast<std::size_t>((i * heads + h) * k), static_cast<std::size_t>(k));
      for (std::int64_t e = 0; e < k; ++e) {
        read[static_cast<std::size_t>(e)] =
            std::inner_product(moved.begin(), moved.end(), all.data() + (i * k + e) * width + first, 0.0) /
            std::sqrt(static_cast<double>(d));
      }
      const double largest = *std::max_element(read.begin(), read.end());
      for (double& score : read) score = std::exp(score - largest);
      const double total = std::accumulate(read.begin(), read.end(), 0.0);
      for (double& weight : read) weight /= total;
    }
  }
  return {shares, gathered};
}

std::string DispatcherKind::layout() const {
  return tally::detail::join(" of ", heads, " heads", mask == ops::AttentionMask::causal ? "" : ", both ways");
}

std::size_t DispatcherKind::State::heap_bytes() const {
  return (gathered.sums.capacity() + gathered.weights.capacity() + gathered.largest.capacity()) * sizeof(double);
}

void DispatcherKind::State::save(std::string& to) const {
  write_values(to, std::span<const double>(gathered.sums));
  write_values(to, std::span<const double>(gathered.weights));
  write_values(to, std::span<const double>(gathered.largest));
}

void DispatcherKind::State::load(ByteReader& bytes, std::int64_t events) {
  bytes.read(std::span(gathered.sums));
  bytes.read(std::span(gathered.weights));
  bytes.read(std::span(gathered.largest));
  gathered.events = events;
  const auto all = [](const std::vector<double>& values, auto&& holds) {
    return std::all_of(values.begin(), values.end(), holds);
  };
  check<IoError>(all(gathered.sums, [](double x) { return std::isfinite(x); }), kDispatcherAttention,
                 "the saved state has a sum that is not finite");
  // The largest score itself weighs 1.
  const bool plausible =
      events == 0 ? all(gathered.weights, [](double x) { return x == 0; }) &&
                        all(gathered.largest, [](double x) { return x == -std::numeric_limits<double>::infinity(); })
                  : all(gathered.weights, [](double x) { return x >= 1 && std::isfinite(x); }) &&
                        all(gathered.largest, [](double x) { return std::isfinite(x); });
  check<IoError>(plausible, kDispatcherAttention, "the saved state has weights that ", events, " events cannot have");
}

DispatcherKind::State DispatcherKind::initial_state() const {
  const Paused paused;
  const auto reader =
      std::make_shared<const ops::DispatcherReader>(expert_query(own_experts()).value(), expert_key.value(),
                                                    expert_value.value(), ops::DispatcherOptions{.heads = heads});
  return {ops::dispatcher_state(heads, reader->experts(), reader->value_width()), reader};
}

Var DispatcherKind::step(State& state, const Var& queries, const Var& source, const Event&) const {
  const Tensor k = key(source).value().contiguous(), v = value(source).value().contiguous(),
               q = query(queries).value().contiguous();
  Tensor read({1, state.reader->heads() * state.reader->output_width()});
  state.reader->step(state.gathered, k.span<float>(), v.span<float>(), q.span<float>(), read.mutable_span<float>());
  return output(Var(read));
}

}  // namespace tally::nn
