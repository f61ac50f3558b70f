#include "tally/ops/lookup/outer_sums.h"

#include <array>
#include <cmath>
#include <limits>

#include "tally/autograd/tape.h"
#include "tally/ops/attention/attention_options.h"
#include "tally/ops/entries.h"
#include "tally/ops/input_gradients.h"
#include "tally/ops/kernels/outer_sums.h"
#include "tally/ops/kernels/packed_symmetric.h"
#include "tally/ops/lookup/lookup_call.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "outer_sums";

/// Places of the inputs.
constexpr int kRows = 0, kLogDecay = 1, kGain = 2, kInitial = 3, kInputs = 4;

/// `inputs`: undefined where absent.
template <class T>
kernels::OuterSumsPlan<T> plan_of(const Offsets& offsets, const std::array<Tensor, kInputs>& inputs) {
  const auto data = [](const Tensor& x) { return x.defined() ? x.data<T>() : nullptr; };
  return {offsets.bounds(),        inputs[kRows].dim(1), {inputs[kRows].strided_data<T>(), inputs[kRows].stride(0)},
          data(inputs[kLogDecay]), data(inputs[kGain]),  data(inputs[kInitial])};
}

struct OuterSumsRule {
  static constexpr std::string_view name = kName;
  Offsets offsets;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  std::array<Saved, kInputs> saved;

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    std::array<Tensor, kInputs> inputs;
    auto gradients = detail::input_gradients(g, saved);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (saved[i].kept()) inputs[i] = saved[i].get();
    }
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      kernels::outer_sums_backward(
          plan_of<T>(offsets, inputs),
          kernels::OuterSumsBackward<T>{gy.data<T>(), gradients.zeros_of<T>(kRows), gradients.zeros_of<T>(kLogDecay),
                                        gradients.zeros_of<T>(kGain), gradients.zeros_of<T>(kInitial)});
    });
    gradients.give();
  }
};

}  // namespace

Var outer_sums(const Var& f, const Var& log_decay, const Var& gain, const Var& initial, const Offsets& offsets) {
  detail::check_one_type(kName, {{"f", &f}, {"log_decay", &log_decay}, {"gain", &gain}, {"initial", &initial}});
  check<ShapeError>(f.rank() == 2 && f.dim(1) > 0, kName, "needs f [T, k] with columns; got ", f.shape());
  offsets.check_rows(f.dim(0), kName);
  const Shape packed{offsets.count(), kernels::packed_symmetric_size(f.dim(1))};
  check<ShapeError>(!initial.defined() || initial.shape() == packed, kName,
                    "needs initial [N, k (k + 1) / 2] = ", packed, " for f ", f.shape(), "; got ",
                    initial.defined() ? initial.shape() : Shape{});
  const std::array<Tensor, kInputs> inputs{
      detail::with_dense_rows(f.value()), detail::checked_log_decay(kName, log_decay, f.dim(0)),
      detail::checked_gain(kName, gain, f.dim(0)), initial.defined() ? initial.value().contiguous() : Tensor()};
  detail::check_finite_rows(kName, "f", inputs[kRows]);
  if (initial.defined()) detail::check_finite_rows(kName, "initial", inputs[kInitial]);
  Tensor output(packed, f.dtype());
  dispatch_floating(f.dtype(), kName, [&]<class T>(T) {
    kernels::outer_sums_forward(plan_of<T>(offsets, inputs), output.mutable_data<T>());
  });
  OuterSumsRule rule{offsets, Saved(offsets.tensor()), {}};
  for (std::size_t i = 0; i < inputs.size(); ++i) rule.saved[i] = Saved(inputs[i], inputs[i].defined());
  return record(std::move(rule), {&f, &log_decay, &gain, &initial}, std::move(output));
}

namespace {

/// With both gates and what was there before; `strength` of the decay.
std::vector<Tensor> inputs_of(const std::vector<std::int64_t>& lengths, std::int64_t width, double strength,
                              std::uint64_t stream) {
  const Offsets offsets = Offsets::from_lengths(lengths);
  return {sample_normal({offsets.total(), width}, stream),
          detail::sample_log_decay(offsets.total(), stream + 1, strength),
          detail::sample_gain(offsets.total(), stream + 2),
          sample_normal({offsets.count(), kernels::packed_symmetric_size(width)}, stream + 3), offsets.tensor()};
}

std::vector<OpSample> samples() {
  std::vector<OpSample> all;
  const auto add = [&](std::string name, std::vector<Tensor> inputs, bool gradient = true) {
    all.push_back({std::move(name), std::move(inputs), {}, gradient});
  };
  add("odd", inputs_of({3, 0, 1, 5}, 5, 0.5, 1));
  add("one", inputs_of({1}, 1, 1, 5));
  add("one row", inputs_of({1}, 5, 1, 301));
  add("empty", inputs_of({}, 4, 1, 9));
  add("empty documents", inputs_of({0, 0}, 3, 1, 13));
  add("long", inputs_of({130, 1, 300}, 3, 0.01, 17));
  add("strong decay", inputs_of({40, 7}, 3, 8, 21));
  // Blocks of the lower triangle, and a document of several segments.
  add("wide", inputs_of({6, 0, 3}, 67, 0.1, 25));
  add("wider", inputs_of({5, 129}, 134, 0.01, 29), false);
  std::vector<Tensor> segments = inputs_of({3, 6200}, 2, 1e-4, 33);
  for (double& x : segments[1].mutable_span<double>()) x += 0.00999;
  add("segments", segments, false);
  // Which inputs are given.
  for (std::size_t absent = 1; absent < 8; ++absent) {
    std::vector<Tensor> inputs = inputs_of({4, 0, 3}, 3, 0.3, 37);
    for (std::size_t i = 0; i < 3; ++i) {
      if ((absent >> i & 1) != 0) inputs[i + 1] = Tensor();
    }
    add("inputs " + std::to_string(absent), inputs);
  }
  // e^-800 is 0: what was before is forgotten.
  for (const double log_decay : {-800.0, -std::numeric_limits<double>::infinity()}) {
    std::vector<Tensor> inputs = inputs_of({9, 4, 3}, 3, 0.2, 41);
    for (const std::int64_t row : {2, 5, 9}) inputs[1].mutable_data<double>()[row] = log_decay;
    add(std::isinf(log_decay) ? "minus infinity" : "resets", inputs, !std::isinf(log_decay));
  }
  std::vector<Tensor> borders = inputs_of({9}, 3, 0.1, 45);
  borders[1].fill(0);
  for (std::int64_t i = 0; i < 9; ++i) borders[2].mutable_data<double>()[i] = static_cast<double>(i % 2);
  add("gates at their bounds", borders, false);
  std::vector<Tensor> extreme = inputs_of({70, 3}, 3, 1e-3, 49);
  for (double& x : extreme[0].mutable_span<double>()) x *= 1e15;
  add("extreme", extreme, false);
  return all;
}

}  // namespace

void entries::add_outer_sums(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary = "The sum of w_t f_t f_t^T over the rows of each document, packed: its fixed-size representation.",
      .inputs = {{"f", "[T, k]"},
                 {"log_decay", "[T]", InputKind::differentiable, true, "of a_t, at most 0; absent: a = 1"},
                 {"gain", "[T]", InputKind::differentiable, true, "b_t in [0, 1]; absent: b = 1"},
                 {"initial", "[N, k (k + 1) / 2]", InputKind::differentiable, true, "what was before; absent: zero"},
                 {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each document begins, and T"}},
      .outputs = {{"packed", "[N, k (k + 1) / 2]"}},
      .call = [](std::span<const Var> in, const OpOptions&) -> std::vector<Var> {
        return {outer_sums(in[0], in[1], in[2], in[3], Offsets(in[4].value()))};
      },
      .samples = samples,
      .errors =
          [] {
            const auto replaced = [](std::size_t input, Tensor tensor) {
              std::vector<Tensor> inputs = inputs_of({2, 3}, 3, 1, 1);
              inputs[input] = std::move(tensor);
              return inputs;
            };
            const auto spoiled = [](std::size_t input, std::int64_t element, double value) {
              std::vector<Tensor> inputs = inputs_of({2, 3}, 3, 1, 1);
              inputs[input].mutable_data<double>()[element] = value;
              return inputs;
            };
            return std::vector<OpError>{
                {"rank", replaced(0, sample_normal({5}, 1)), {}, "needs f [T, k] with columns; got [5]"},
                {"no columns", replaced(0, sample_normal({5, 0}, 1)), {}, "with columns; got [5, 0]"},
                {"types", replaced(2, sample_normal({5}, 1).to(DType::f32)), {}, "one floating type; got f f64"},
                {"integers", replaced(0, sample_integers({5, 3}, 1, 3)), {}, "one floating type"},
                {"offsets", replaced(4, Offsets::single(6).tensor()), {}, "number of rows 5; got 6"},
                {"decays", replaced(1, sample_normal({4}, 1)), {}, "needs log_decay [T] with T = 5; got [4]"},
                {"gains", replaced(2, sample_normal({5, 1}, 1)), {}, "needs gain [T] with T = 5; got [5, 1]"},
                {"initial", replaced(3, sample_normal({2, 9}, 1)), {}, "= [2, 6] for f [5, 3]; got [2, 9]"},
                {"row", spoiled(0, 7, std::nan("")), {}, "needs finite f; got one that is not in row 2"},
                {"document", spoiled(3, 7, std::nan("")), {}, "needs finite initial; got one that is not in row 1"},
                {"growth", spoiled(1, 2, 0.5), {}, "needs log_decay of at most 0; got 0.5 at row 2"},
                {"gain above", spoiled(2, 0, 1.5), {}, "needs gain in [0, 1]; got 1.5 at row 0"}};
          },
      .large =
          [] {
            return OpSample{"large", inputs_of(std::vector<std::int64_t>(16, 750), 128, 0.01, 1), {}};
          },
      .flops =
          [](const OpSample& sample) {
            const auto width = static_cast<double>(sample.inputs[0].dim(1));
            return static_cast<double>(sample.inputs[0].dim(0)) * width * (width + 1);
          },
  });
}

}  // namespace tally::ops
