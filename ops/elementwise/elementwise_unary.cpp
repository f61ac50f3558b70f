#include <string>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/elementwise/broadcast.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/elementwise.h"

namespace tally::ops {
namespace {

using kernels::DerivativeOf;
using kernels::UnaryConstants;
using kernels::UnaryOp;

constexpr std::string_view kNames[] = {"negate",  "abs",  "exp",   "log",   "square",   "sqrt",  "tanh",
                                       "sigmoid", "relu", "gelu",  "silu",  "softplus", "sign",  "sin",
                                       "cos",     "erf",  "log1p", "expm1", "elu",      "power", "clamp"};

constexpr std::string_view name_of(UnaryOp op) { return kNames[static_cast<std::size_t>(op)]; }

/// One rule for the family; a type for each function, so that every node tells its name.
template <UnaryOp kOp>
struct UnaryRule {
  static constexpr std::string_view name = name_of(kOp);
  UnaryConstants constants;
  Saved saved;

  void backward(BackwardContext& g) const {
    // Elementwise: the cotangent's own memory takes the gradient when nobody else holds it.
    const bool in_place = g.cotangent().unique();
    const Tensor gy = in_place ? g.take_cotangent() : g.cotangent();
    Tensor gx = in_place ? gy : Tensor(gy.shape(), gy.dtype());
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      const T *from = gy.data<T>(), *kept = saved.kept() ? saved.get().data<T>() : nullptr;
      T* to = gx.mutable_data<T>();
      parallel_for(gy.numel(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
        kernels::unary_backward(kOp, from + begin, kept == nullptr ? nullptr : kept + begin, to + begin, end - begin,
                                constants);
      });
    });
    g.give(0, std::move(gx));
  }
};

template <UnaryOp kOp>
Var apply(const Var& x, const UnaryConstants& constants = {}) {
  const Tensor input = x.value().contiguous();
  Tensor output(input.shape(), input.dtype());
  dispatch_floating(input.dtype(), name_of(kOp), [&]<class T>(T) {
    const T* from = input.data<T>();
    T* to = output.mutable_data<T>();
    parallel_for(input.numel(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
      kernels::unary(kOp, from + begin, to + begin, end - begin, constants);
    });
  });
  Saved saved;
  if (recording(x)) {
    const DerivativeOf of = kernels::derivative_of(kOp);
    if (of != DerivativeOf::nothing) saved = Saved(of == DerivativeOf::input ? input : output);
  }
  return record(UnaryRule<kOp>{constants, std::move(saved)}, {&x}, std::move(output));
}

}  // namespace

Var negate(const Var& x) { return apply<UnaryOp::negate>(x); }
Var abs(const Var& x) { return apply<UnaryOp::absolute>(x); }
Var exp(const Var& x) { return apply<UnaryOp::exp>(x); }
Var log(const Var& x) { return apply<UnaryOp::log>(x); }
Var square(const Var& x) { return apply<UnaryOp::square>(x); }
Var sqrt(const Var& x) { return apply<UnaryOp::sqrt>(x); }
Var tanh(const Var& x) { return apply<UnaryOp::tanh>(x); }
Var sigmoid(const Var& x) { return apply<UnaryOp::sigmoid>(x); }
Var relu(const Var& x) { return apply<UnaryOp::relu>(x); }
Var gelu(const Var& x) { return apply<UnaryOp::gelu>(x); }
Var silu(const Var& x) { return apply<UnaryOp::silu>(x); }
Var softplus(const Var& x) { return apply<UnaryOp::softplus>(x); }
Var sign(const Var& x) { return apply<UnaryOp::sign>(x); }
Var sin(const Var& x) { return apply<UnaryOp::sin>(x); }
Var cos(const Var& x) { return apply<UnaryOp::cos>(x); }
Var erf(const Var& x) { return apply<UnaryOp::erf>(x); }
Var log1p(const Var& x) { return apply<UnaryOp::log1p>(x); }
Var expm1(const Var& x) { return apply<UnaryOp::expm1>(x); }
Var elu(const Var& x, const EluOptions& options) { return apply<UnaryOp::elu>(x, {.alpha = options.alpha}); }
Var power(const Var& x, double exponent) { return apply<UnaryOp::power>(x, {.exponent = exponent}); }

Var clamp(const Var& x, const ClampOptions& options) {
  check<ValueError>(options.low <= options.high, "clamp", "needs low <= high; got ", options.low, " and ",
                    options.high);
  return apply<UnaryOp::clamp>(x, {.low = options.low, .high = options.high});
}

// ---- Catalog

namespace {

/// What the entries of the family differ in.
struct UnaryEntry {
  UnaryOp op;
  std::string summary;
  Var (*call)(const Var&, const OpOptions&);
  std::vector<OpOption> options = {};
  std::vector<OpOptions> choices = {{}};  ///< options to sample
  bool positive = false;                  ///< defined for positive x only
  std::vector<double> kinks = {};         ///< samples keep their distance from these
  std::vector<double> extreme = {};       ///< magnitudes at which the result must be finite
  std::string no_gradient = {};           ///< why there is none to check
};

/// Normal values, moved away from kinks; or positive ones.
Tensor smooth_values(const UnaryEntry& entry, const Shape& shape, std::uint64_t stream, double deviation) {
  Tensor values = sample_normal(shape, stream, deviation);
  for (double& value : values.mutable_span<double>()) {
    if (entry.positive) value = 0.1 + std::abs(value);
    for (const double kink : entry.kinks) {
      if (std::abs(value - kink) < 0.05) value = kink + (value < kink ? -0.05 : 0.05);
    }
  }
  return values;
}

std::vector<OpSample> unary_samples(const UnaryEntry& entry) {
  std::vector<OpSample> samples;
  for (const OpOptions& options : entry.choices) {
    samples.push_back({"odd", {smooth_values(entry, {3, 7}, 1, 1)}, options});
    samples.push_back({"wide", {smooth_values(entry, {67}, 2, 3)}, options});
    samples.push_back({"one", {smooth_values(entry, {1}, 3, 1)}, options});
    samples.push_back({"scalar", {smooth_values(entry, {}, 4, 1)}, options});
    samples.push_back({"empty", {Tensor({0, 4}, DType::f64)}, options});
    if (!entry.kinks.empty())
      samples.push_back({"at kinks",
                         {Tensor::from(entry.kinks, {static_cast<std::int64_t>(entry.kinks.size())})},
                         options,
                         true,
                         true});
    if (!entry.extreme.empty())
      samples.push_back({"extreme",
                         {Tensor::from(entry.extreme, {static_cast<std::int64_t>(entry.extreme.size())})},
                         options,
                         false});
  }
  return samples;
}

std::vector<UnaryEntry> unary_entries() {
  const std::vector<double> any{0, -0.0, 1e-30, -1e-30, 1e4, -1e4, 1e30, -1e30};
  const double kInfinity = std::numeric_limits<double>::infinity();
  return {
      {.op = UnaryOp::negate,
       .summary = "-x",
       .call = [](const Var& x, const OpOptions&) { return negate(x); },
       .extreme = any},
      {.op = UnaryOp::absolute,
       .summary = "|x|; derivative 0 at 0",
       .call = [](const Var& x, const OpOptions&) { return abs(x); },
       .kinks = {0},
       .extreme = any},
      {.op = UnaryOp::exp,
       .summary = "e^x",
       .call = [](const Var& x, const OpOptions&) { return exp(x); },
       .extreme = {0, 80, -80, -1e4, -1e30}},
      {.op = UnaryOp::log,
       .summary = "Natural logarithm",
       .call = [](const Var& x, const OpOptions&) { return log(x); },
       .positive = true,
       .extreme = {1e-30, 1, 1e30}},
      {.op = UnaryOp::square,
       .summary = "x^2",
       .call = [](const Var& x, const OpOptions&) { return square(x); },
       .extreme = {0, 1e-15, 1e15, -1e15}},
      {.op = UnaryOp::sqrt,
       .summary = "Square root",
       .call = [](const Var& x, const OpOptions&) { return sqrt(x); },
       .positive = true,
       .extreme = {0, 1e-30, 1e30}},
      {.op = UnaryOp::tanh,
       .summary = "Hyperbolic tangent",
       .call = [](const Var& x, const OpOptions&) { return tanh(x); },
       .extreme = any},
      {.op = UnaryOp::sigmoid,
       .summary = "1 / (1 + e^-x)",
       .call = [](const Var& x, const OpOptions&) { return sigmoid(x); },
       .extreme = any},
      {.op = UnaryOp::relu,
       .summary = "max(x, 0); derivative 0 at 0",
       .call = [](const Var& x, const OpOptions&) { return relu(x); },
       .kinks = {0},
       .extreme = any},
      {.op = UnaryOp::gelu,
       .summary = "x Phi(x) with the normal distribution function (erf form)",
       .call = [](const Var& x, const OpOptions&) { return gelu(x); },
       .extreme = any},
      {.op = UnaryOp::silu,
       .summary = "x sigmoid(x)",
       .call = [](const Var& x, const OpOptions&) { return silu(x); },
       .extreme = any},
      {.op = UnaryOp::softplus,
       .summary = "log(1 + e^x)",
       .call = [](const Var& x, const OpOptions&) { return softplus(x); },
       .extreme = any},
      {.op = UnaryOp::sign,
       .summary = "-1, 0 or 1; NaN stays NaN; derivative 0",
       .call = [](const Var& x, const OpOptions&) { return sign(x); },
       .extreme = any,
       .no_gradient = "its derivative is 0"},
      {.op = UnaryOp::sin,
       .summary = "Sine of radians",
       .call = [](const Var& x, const OpOptions&) { return sin(x); },
       .extreme = any},
      {.op = UnaryOp::cos,
       .summary = "Cosine of radians",
       .call = [](const Var& x, const OpOptions&) { return cos(x); },
       .extreme = any},
      {.op = UnaryOp::erf,
       .summary = "The error function",
       .call = [](const Var& x, const OpOptions&) { return erf(x); },
       .extreme = any},
      {.op = UnaryOp::log1p,
       .summary = "log(1 + x), accurate near 0",
       .call = [](const Var& x, const OpOptions&) { return log1p(x); },
       .positive = true,
       .extreme = {0, -0.0, 1e-30, -1e-30, -0.999, 1e30}},
      {.op = UnaryOp::expm1,
       .summary = "e^x - 1, accurate near 0",
       .call = [](const Var& x, const OpOptions&) { return expm1(x); },
       .extreme = {0, -0.0, 1e-30, -1e-30, 80, -1e4, -1e30}},
      {.op = UnaryOp::elu,
       .summary = "x for x > 0, else alpha (e^x - 1)",
       .call = [](const Var& x, const OpOptions& o) { return elu(x, {.alpha = o.number("alpha", 1)}); },
       .options = {{"alpha", 1.0, "limit for x to -infinity is -alpha"}},
       .choices = {{}, {{"alpha", 0.3}}},
       .kinks = {0},
       .extreme = any},
      {.op = UnaryOp::power,
       .summary = "x^exponent, as std::pow",
       .call = [](const Var& x, const OpOptions& o) { return power(x, o.number("exponent", 1)); },
       .options = {{"exponent", 1.0, "any number"}},
       .choices = {{{"exponent", 3.0}}, {{"exponent", -1.5}}, {{"exponent", 0.5}}, {{"exponent", 0.0}}, {}},
       .positive = true,
       .extreme = {1e-10, 1, 1e10}},
      {.op = UnaryOp::clamp,
       .summary = "x brought into [low, high]; the gradient passes inside and at the bounds",
       .call =
           [](const Var& x, const OpOptions& o) {
             return clamp(x, {.low = o.number("low", -std::numeric_limits<double>::infinity()),
                              .high = o.number("high", std::numeric_limits<double>::infinity())});
           },
       .options = {{"low", -kInfinity, "lower bound"}, {"high", kInfinity, "upper bound"}},
       .choices = {{{"low", -0.5}, {"high", 0.75}}, {{"low", -0.5}}, {{"high", 0.75}}, {}},
       .kinks = {-0.5, 0.75},
       .extreme = any},
  };
}

}  // namespace

void entries::add_elementwise_unary(Catalog& catalog) {
  for (const UnaryEntry& entry : unary_entries()) {
    catalog.add({
        .name = std::string(name_of(entry.op)),
        .summary = entry.summary + ".",
        .inputs = {{.name = "x",
                    .shape = "[...]",
                    .kind = entry.no_gradient.empty() ? InputKind::differentiable : InputKind::constant,
                    .no_gradient = entry.no_gradient}},
        .options = entry.options,
        .outputs = {{"y", "[...]"}},
        .call = [call = entry.call](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
          return {call(in[0], options)};
        },
        .samples = [entry] { return unary_samples(entry); },
        .errors =
            [entry] {
              std::vector<OpError> errors{{"integers", {sample_integers({3}, 1, 5)}, {}, "needs f32 or f64; got i64"}};
              if (entry.op == UnaryOp::clamp) {
                errors.push_back({"order", {sample_normal({3}, 1)}, {{"low", 1.0}, {"high", 0.0}}, "low <= high"});
              }
              return errors;
            },
        .large =
            [entry] {
              return OpSample{"large", {smooth_values(entry, {2048, 256}, 9, 2)}, entry.choices[0]};
            },
        .kinks = !entry.kinks.empty(),
    });
  }
}

}  // namespace tally::ops
