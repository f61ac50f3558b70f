#include "tally/ops/attention/linear_attention.h"

#include <array>
#include <cmath>
#include <limits>

#include "tally/autograd/tape.h"
#include "tally/ops/attention/attention_options.h"
#include "tally/ops/attention/linear_attention_call.h"
#include "tally/ops/kernels/linear_attention.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "linear_attention";
constexpr std::int64_t kChunkRows = 64;

/// Places of the inputs.
constexpr std::size_t kQueries = 0, kKeys = 1, kValues = 2, kLogDecay = 3, kGain = 4, kInitial = 5, kInputs = 6;
using Inputs = std::array<Tensor, kInputs>;

/// What a call needs beside its tensors.
struct Call {
  detail::MemorySizes sizes;
  LinearAttentionOptions options;
  detail::GateShape decay = detail::GateShape::absent, gain = detail::GateShape::absent;
};

template <class T>
kernels::GateRows<const T> gate_rows(const Tensor& gate, detail::GateShape shape) {
  if (shape == detail::GateShape::absent) return {};
  const T* data = gate.data<T>();
  if (shape == detail::GateShape::constant) return {data, 0, 1};
  const std::int64_t columns = gate.dim(1);
  return {data, columns, shape == detail::GateShape::memory ? 1 : 0};
}

template <class T>
kernels::LinearAttentionPlan<T> plan_of(const Call& call, const Offsets& offsets, const Inputs& inputs) {
  const auto rows = [&](std::size_t i) {
    return kernels::MatrixRows<const T>{inputs[i].strided_data<T>(), inputs[i].stride(0)};
  };
  const detail::MemorySizes& sizes = call.sizes;
  kernels::LinearAttentionPlan<T> plan;
  plan.bounds = offsets.bounds();
  plan.heads = sizes.heads;
  plan.memories = sizes.memories;
  plan.width = sizes.width;
  plan.value_width = sizes.value_width;
  plan.scale = sizes.scale;
  plan.delta = corrects(call.options.rule);
  plan.bidirectional = call.options.mask == AttentionMask::bidirectional;
  if (call.decay == detail::GateShape::channel) {
    const bool keys = call.options.decay_along == DecayAlong::keys;
    plan.decay_of = keys ? kernels::DecayOf::keys : kernels::DecayOf::values;
  }
  plan.q = rows(kQueries);
  plan.k = rows(kKeys);
  plan.v = rows(kValues);
  plan.log_decay = gate_rows<T>(inputs[kLogDecay], call.decay);
  if (call.decay == detail::GateShape::channel) plan.log_decay.memory_stride = plan.decay_width();
  plan.gain = gate_rows<T>(inputs[kGain], call.gain);
  if (inputs[kInitial].defined()) plan.initial_state = inputs[kInitial].data<T>();
  return plan;
}

/// Rows of a chunk; 1 row by row.
std::int64_t chunk_of(LinearExecution execution) { return execution == LinearExecution::recurrent ? 1 : kChunkRows; }

/// The gradient of a gate as it was given, from that of each row and memory.
Tensor gathered(const Tensor& each, const Tensor& gate, detail::GateShape shape) {
  if (shape != detail::GateShape::constant && shape != detail::GateShape::shared) return each;
  Tensor sums(gate.shape(), gate.dtype());
  dispatch_floating(gate.dtype(), kName, [&]<class T>(T) {
    const auto add = shape == detail::GateShape::constant ? kernels::sum_over_rows<T> : kernels::sum_over_columns<T>;
    add(each.data<T>(), each.dim(0), each.dim(1), sums.mutable_data<T>());
  });
  return sums;
}

struct LinearAttentionRule {
  static constexpr std::string_view name = kName;
  Call call;
  Offsets offsets;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  std::array<Saved, kInputs> saved;

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent(0);
    const Tensor gs = call.options.final_state && g.has_cotangent(1) ? g.cotangent(1) : Tensor();
    Inputs inputs, gradients;
    for (std::size_t i = 0; i < kInputs; ++i) {
      if (saved[i].kept()) inputs[i] = saved[i].get();
    }
    dispatch_floating(inputs[kQueries].dtype(), name, [&]<class T>(T) {
      const auto to = [&](std::size_t i, const Shape& shape) -> T* {
        if (!g.needs(static_cast<int>(i))) return nullptr;
        gradients[i] = Tensor(shape, inputs[i].dtype());
        return gradients[i].mutable_data<T>();
      };
      const kernels::LinearAttentionPlan<T> plan = plan_of<T>(call, offsets, inputs);
      const std::int64_t rows = inputs[kQueries].dim(0);
      const auto as_given = [&](std::size_t i) { return to(i, inputs[i].defined() ? inputs[i].shape() : Shape{}); };
      const kernels::LinearAttentionBackward<T> data{gy.data<T>(),
                                                     gs.defined() ? gs.data<T>() : nullptr,
                                                     as_given(kQueries),
                                                     as_given(kKeys),
                                                     as_given(kValues),
                                                     to(kLogDecay, {rows, plan.memories * plan.decay_width()}),
                                                     to(kGain, {rows, plan.memories}),
                                                     as_given(kInitial)};
      if (call.options.execution == LinearExecution::naive) {
        kernels::naive_linear_attention_backward(plan, data);
      } else {
        kernels::linear_attention_backward(plan, chunk_of(call.options.execution), data);
      }
    });
    if (g.needs(kLogDecay)) gradients[kLogDecay] = gathered(gradients[kLogDecay], inputs[kLogDecay], call.decay);
    if (g.needs(kGain)) gradients[kGain] = gathered(gradients[kGain], inputs[kGain], call.gain);
    for (std::size_t i = 0; i < kInputs; ++i) {
      if (g.needs(static_cast<int>(i))) g.give(static_cast<int>(i), std::move(gradients[i]));
    }
  }
};

/// Sizes of a call whose shapes fit.
detail::MemorySizes checked_sizes(const LinearAttentionInputs& in, const LinearAttentionOptions& options) {
  const Shape &q = in.q.shape(), &k = in.k.shape(), &v = in.v.shape();
  check<ValueError>(options.heads >= 1, kName, "needs at least one head; got ", options.heads);
  check<ShapeError>(q.rank() == 2 && k.rank() == 2 && v.rank() == 2 && k[0] == q[0] && v[0] == q[0] && q[1] > 0 &&
                        q[1] % options.heads == 0,
                    kName,
                    "needs q [T, heads * d], k [T, memories * d] and v [T, memories * e] with heads = ", options.heads,
                    "; got q ", q, ", k ", k, " and v ", v);
  const std::int64_t width = q[1] / options.heads, memories = k[1] / width;
  check<ShapeError>(
      memories > 0 && k[1] % width == 0 && options.heads % memories == 0 && v[1] > 0 && v[1] % memories == 0, kName,
      "needs memories that divide the heads, ", options.heads, " of width ", width,
      ", and share the columns of k and v; got q ", q, ", k ", k, " and v ", v);
  check<ValueError>(std::isfinite(options.scale), kName, "needs a finite scale; got ", options.scale);
  return {options.heads, memories, width, v[1] / memories,
          options.scale == 0 ? 1 / std::sqrt(static_cast<double>(width)) : options.scale};
}

}  // namespace

namespace detail {

void check_rule(std::string_view op, const LinearAttentionOptions& options, bool log_decay) {
  const UpdateRule rule = options.rule;
  const std::string_view word = word_of(rule);
  check<ValueError>(options.decay_along == DecayAlong::keys || rule == UpdateRule::gated, op,
                    "needs the rule gated for decays along values; got the rule ", word);
  check<ValueError>(decays(rule) == log_decay, op,
                    decays(rule) ? "needs log_decay for the rule " : "needs no log_decay for the rule ", word,
                    decays(rule) ? "; got none" : "; got one");
  check<ValueError>(options.mask == AttentionMask::causal || rule == UpdateRule::linear, op,
                    "needs the rule linear where every row reads the whole sequence, for other rules two causal calls; "
                    "got a bidirectional mask and the rule ",
                    word);
}

GateShape gate_shape(std::string_view op, const Shape& shape, std::int64_t rows, const MemorySizes& sizes,
                     std::optional<DecayAlong> decay) {
  const bool values = decay == DecayAlong::values;
  const std::int64_t channels = values ? sizes.value_width : sizes.width;
  if (decay && shape == Shape{sizes.memories}) return GateShape::constant;
  if (shape == Shape{rows, sizes.memories}) return GateShape::memory;
  if (shape == Shape{rows, 1}) return GateShape::shared;
  if (decay && shape == Shape{rows, sizes.memories * channels}) return GateShape::channel;
  const char* letter = values ? "e" : "d";
  const std::string wanted =
      decay ? tally::detail::join("log_decay [memories], [T, 1], [T, memories] or [T, memories * ", letter, "]")
            : "gain [T, 1] or [T, memories]";
  fail<ShapeError>(op, "needs ", wanted, " with T = ", rows, ", memories = ", sizes.memories, ", ", letter, " = ",
                   channels, "; got ", shape);
}

template <class T>
void check_gates(std::string_view op, std::string_view name, std::string_view domain, std::span<const T> gates,
                 std::size_t columns, double least, double most) {
  // All at once, without a branch each; the row is looked for where one is wrong.
  int wrong = 0;
  for (const T x : gates) wrong |= static_cast<int>(!(double{x} >= least)) | static_cast<int>(!(double{x} <= most));
  if (wrong == 0) return;
  for (std::size_t i = 0; i < gates.size(); ++i) {
    const double x{gates[i]};
    check<ValueError>(x >= least && x <= most, op, "needs ", name, domain, "; got ", x, " at row ", i / columns);
  }
}

template <class T>
void check_log_decay(std::string_view op, std::span<const T> gates, std::size_t columns) {
  check_gates(op, "log_decay", " of at most 0", gates, columns, -std::numeric_limits<double>::infinity(), 0);
}

template <class T>
void check_gain(std::string_view op, std::span<const T> gates, std::size_t columns, UpdateRule rule) {
  const double largest = std::numeric_limits<double>::max();
  if (corrects(rule)) {
    check_gates(op, "gain", " in [0, 2] for a delta rule", gates, columns, 0, 2);
  } else {
    check_gates(op, "gain", " that is finite", gates, columns, -largest, largest);
  }
}

template void check_log_decay(std::string_view, std::span<const float>, std::size_t);
template void check_log_decay(std::string_view, std::span<const double>, std::size_t);
template void check_gain(std::string_view, std::span<const float>, std::size_t, UpdateRule);
template void check_gain(std::string_view, std::span<const double>, std::size_t, UpdateRule);

}  // namespace detail

LinearAttentionResult linear_attention(const LinearAttentionInputs& in, const Offsets& offsets,
                                       const LinearAttentionOptions& options) {
  detail::check_one_type(kName, {{"q", &in.q},
                                 {"k", &in.k},
                                 {"v", &in.v},
                                 {"log_decay", &in.log_decay},
                                 {"gain", &in.gain},
                                 {"initial_state", &in.initial_state}});
  Call call{checked_sizes(in, options), options};
  const detail::MemorySizes& sizes = call.sizes;
  const std::int64_t rows = in.q.dim(0);
  offsets.check_rows(rows, kName);
  detail::check_rule(kName, options, in.log_decay.defined());
  const Shape states{offsets.count(), sizes.memories, sizes.width, sizes.value_width};
  check<ShapeError>(!in.initial_state.defined() || in.initial_state.shape() == states, kName,
                    "needs initial_state [N, memories, d, e] = ", states, "; got ",
                    in.initial_state.defined() ? in.initial_state.shape() : Shape{});
  const auto dense = [](const Var& x) { return x.defined() ? x.value().contiguous() : Tensor(); };
  const Inputs inputs{detail::with_dense_rows(in.q.value()),
                      detail::with_dense_rows(in.k.value()),
                      detail::with_dense_rows(in.v.value()),
                      dense(in.log_decay),
                      dense(in.gain),
                      dense(in.initial_state)};
  if (in.log_decay.defined())
    call.decay = detail::gate_shape(kName, in.log_decay.shape(), rows, sizes, options.decay_along);
  if (in.gain.defined()) call.gain = detail::gate_shape(kName, in.gain.shape(), rows, sizes, {});
  dispatch_floating(in.q.dtype(), kName, [&]<class T>(T) {
    const auto columns = [](const Tensor& x) { return x.rank() == 2 ? static_cast<std::size_t>(x.dim(1)) : 1; };
    const Tensor &decay = inputs[kLogDecay], &gain = inputs[kGain];
    if (decay.defined()) detail::check_log_decay<T>(kName, decay.span<T>(), columns(decay));
    if (gain.defined()) detail::check_gain<T>(kName, gain.span<T>(), columns(gain), options.rule);
  });
  detail::check_finite_rows(kName, "k", inputs[kKeys]);
  detail::check_finite_rows(kName, "v", inputs[kValues]);

  std::vector<Tensor> outputs{Tensor({rows, sizes.heads * sizes.value_width}, in.q.dtype())};
  if (options.final_state) outputs.emplace_back(states, in.q.dtype());
  dispatch_floating(in.q.dtype(), kName, [&]<class T>(T) {
    const kernels::LinearAttentionPlan<T> plan = plan_of<T>(call, offsets, inputs);
    T *y = outputs[0].mutable_data<T>(), *final_state = options.final_state ? outputs[1].mutable_data<T>() : nullptr;
    if (options.execution == LinearExecution::naive) {
      kernels::naive_linear_attention_forward(plan, y, final_state);
    } else {
      kernels::linear_attention_forward(plan, chunk_of(options.execution), y, final_state);
    }
  });
  LinearAttentionRule rule{call, offsets, Saved(offsets.tensor()), {}};
  for (std::size_t i = 0; i < kInputs; ++i) rule.saved[i] = Saved(inputs[i], inputs[i].defined());
  const std::array<const Var*, kInputs> recorded{&in.q, &in.k, &in.v, &in.log_decay, &in.gain, &in.initial_state};
  std::vector<Var> results = record(std::move(rule), std::span<const Var* const>(recorded), std::move(outputs));
  return {std::move(results[0]), options.final_state ? std::move(results[1]) : Var()};
}

}  // namespace tally::ops
