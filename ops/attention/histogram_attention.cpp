#include "tally/ops/attention/histogram_attention.h"

#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/core/kernels.h"
#include "tally/ops/attention/histogram_attention_call.h"
#include "tally/ops/kernels/histogram_attention.h"

namespace tally::ops {
namespace detail {
namespace {

constexpr std::string_view kName = "histogram_attention";

/// Throws unless every element is finite.
void check_finite(const Tensor& tensor, std::string_view what) {
  const double sum = dispatch_floating(tensor.dtype(), kName,
                                       [&]<class T>(T) { return kernels::sum(tensor.data<T>(), tensor.numel()); });
  // A finite sum has finite terms, and is faster to compute than to look at each.
  if (std::isfinite(sum) || all_finite(tensor)) return;
  const std::vector<double> elements = tensor.to_doubles();
  std::size_t i = 0;
  while (std::isfinite(elements[i])) ++i;
  fail<ValueError>(kName, "needs finite ", what, "; got ", elements[i], " at element ", i);
}

void check_codes(const Tensor& codes, std::int64_t words) {
  const auto check_all = [&]<class C>(std::span<const C> all) {
    bool good = true;
    for (const C code : all) good = good && std::int64_t{code} >= 0 && std::int64_t{code} < words;
    if (good) return;
    std::size_t i = 0;
    while (std::int64_t{all[i]} >= 0 && std::int64_t{all[i]} < words) ++i;
    const auto codebooks = static_cast<std::size_t>(codes.dim(1));
    fail<IndexError>(kName, "needs codes in [0, ", words, "); got ", std::int64_t{all[i]}, " at row ", i / codebooks,
                     " of codebook ", i % codebooks);
  };
  if (codes.dtype() == DType::u8) {
    check_all(codes.span<std::uint8_t>());
  } else {
    check_all(codes.span<std::int32_t>());
  }
}

}  // namespace

HistogramCall check_histogram_attention(const Tensor& codes, const Var& assignments, const Var& tables,
                                        const Var& values, const Var& log_decay, const Offsets& offsets,
                                        const HistogramAttentionOptions& options, bool differentiated) {
  const DType dtype = tables.dtype();
  const auto same_type = [&](const Var& x) { return !x.defined() || x.dtype() == dtype; };
  check<DTypeError>(is_floating(dtype) && same_type(values) && same_type(assignments) && same_type(log_decay), kName,
                    "needs tables, values, assignments and log_decay of one floating type; got tables ", dtype,
                    ", values ", values.dtype(), assignments.defined() ? ", assignments " : "",
                    assignments.defined() ? name_of(assignments.dtype()) : "",
                    log_decay.defined() ? ", log_decay " : "", log_decay.defined() ? name_of(log_decay.dtype()) : "");
  check<DTypeError>(codes.dtype() == DType::u8 || codes.dtype() == DType::i32, kName, "needs codes u8 or i32; got ",
                    codes.dtype());
  const Shape &sc = codes.shape(), &st = tables.shape(), &sv = values.shape();
  check<ShapeError>(st.rank() == 3 && st[1] == st[2] && sc.rank() == 2 && sc[1] == st[0] && sv.rank() == 2, kName,
                    "needs codes [T, B], tables [B, W, W] and values [B * W, D]; got codes ", sc, ", tables ", st,
                    " and values ", sv);
  check<ValueError>(st[0] > 0 && st[1] > 0, kName, "needs at least one codebook and one codeword; got tables ", st);
  check<ShapeError>(sv[0] == st[0] * st[1] && sv[1] > 0, kName, "needs values [B * W, D]; got tables ", st,
                    " and values ", sv);
  check<ShapeError>(!assignments.defined() || assignments.shape() == Shape({sc[0], st[0], st[1]}), kName,
                    "needs assignments [T, B, W]; got codes ", sc, ", tables ", st, " and assignments ",
                    assignments.defined() ? assignments.shape() : Shape{});
  const bool soft = options.assignment == CodewordAssignment::soft;
  check<ValueError>(!soft || assignments.defined(), kName, "needs assignments where they are soft; got none");
  check<ShapeError>(!log_decay.defined() || log_decay.numel() == 1, kName, "needs one element of log_decay; got ",
                    log_decay.defined() ? log_decay.shape() : Shape{});
  offsets.check_rows(sc[0], kName);
  check<ValueError>(options.window >= 0, kName, "needs a window of at least 1, or 0 for none; got ", options.window);
  check<ValueError>(std::isfinite(options.scale), kName, "needs a finite scale; got ", options.scale);

  HistogramCall call;
  call.offsets = offsets;
  call.options = options;
  if (options.scale == 0) call.options.scale = 1 / std::sqrt(static_cast<double>(sv[1]));
  if (log_decay.defined()) call.rate = std::exp(log_decay.item());
  check<ValueError>(std::isfinite(call.rate), kName, "needs a log_decay whose exponential is finite; got ",
                    log_decay.defined() ? log_decay.item() : 0);
  call.tables = tables.value().contiguous();
  call.values = values.value().contiguous();
  check_finite(call.tables, "tables");
  check_finite(call.values, "values");
  call.codes = codes.contiguous();
  check_codes(call.codes, st[1]);
  if (soft || differentiated) {
    call.assignments = assignments.value().contiguous();
    check_finite(call.assignments, "assignments");
  }
  return call;
}

template <class T>
kernels::HistogramProblem<T> HistogramCall::problem() const {
  kernels::HistogramProblem<T> problem;
  problem.bounds = offsets.bounds();
  problem.codebooks = codebooks();
  problem.words = words();
  problem.width = width();
  problem.causal = options.mask == AttentionMask::causal;
  problem.window = options.window;
  problem.scale = options.scale;
  problem.rate = rate;
  problem.codes.codebooks = codebooks();
  if (codes.dtype() == DType::u8) {
    problem.codes.narrow = codes.data<std::uint8_t>();
  } else {
    problem.codes.wide = codes.data<std::int32_t>();
  }
  if (options.assignment == CodewordAssignment::soft) problem.logits = assignments.data<T>();
  problem.tables = tables.data<T>();
  problem.values = values.data<T>();
  return problem;
}

Tensor HistogramCall::forward(const Tensor& dense) const {
  Tensor output({codes.dim(0), width()}, dtype());
  dispatch_floating(dtype(), kName, [&]<class T>(T) {
    kernels::HistogramProblem<T> all = problem<T>();
    if (dense.defined()) all.dense = dense.data<T>();
    kernels::histogram_attention_forward(all, output.mutable_data<T>());
  });
  return output;
}

Tensor codeword_softmax(const Tensor& logits) {
  const Tensor from = logits.contiguous();
  Tensor result(from.shape(), from.dtype());
  const std::int64_t words = from.dim(-1);
  dispatch_floating(from.dtype(), kName, [&]<class T>(T) {
    const T* x = from.data<T>();
    T* y = result.mutable_data<T>();
    for (std::int64_t i = 0; i < from.numel(); i += words) {
      const double sum = kernels::exp_and_sum(y + i, x + i, T{1}, kernels::max_value(x + i, words), words);
      kernels::scale(y + i, static_cast<T>(1 / sum), words);
    }
  });
  return result;
}

}  // namespace detail

namespace {

struct HistogramAttentionRule {
  static constexpr std::string_view name = "histogram_attention";
  Saved codes, assignments, tables, values, log_decay, bounds;
  Offsets offsets;
  HistogramAttentionOptions options;
  Shape decay_shape;

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    detail::HistogramCall call;
    call.codes = codes.get();
    if (assignments.kept()) call.assignments = assignments.get();
    call.tables = tables.get();
    call.values = values.get();
    call.offsets = offsets;
    call.options = options;
    if (log_decay.kept()) call.rate = std::exp(log_decay.get().item());
    const auto gradient = [&](int i, const Shape& shape) { return g.needs(i) ? Tensor(shape, gy.dtype()) : Tensor(); };
    Tensor g_assignments = gradient(0, Shape({call.codes.dim(0), call.codebooks(), call.words()}));
    Tensor g_tables = gradient(1, call.tables.shape()), g_values = gradient(2, call.values.shape());
    double g_rate = 0;
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      const auto data = [](Tensor& x) { return x.defined() ? x.mutable_data<T>() : nullptr; };
      kernels::HistogramGradients<T> gradients;
      gradients.output = gy.data<T>();
      gradients.logits = g.needs(0) ? call.assignments.data<T>() : nullptr;
      gradients.logit_gradients = data(g_assignments);
      gradients.tables = data(g_tables);
      gradients.values = data(g_values);
      gradients.rate = g.needs(3) ? &g_rate : nullptr;
      kernels::histogram_attention_backward(call.problem<T>(), gradients);
    });
    if (g.needs(0)) g.give(0, std::move(g_assignments));
    if (g.needs(1)) g.give(1, std::move(g_tables));
    if (g.needs(2)) g.give(2, std::move(g_values));
    // d lambda / d log_decay = lambda.
    if (g.needs(3)) g.give(3, Tensor::full(decay_shape, call.rate * g_rate, gy.dtype()));
  }
};

}  // namespace

Var histogram_attention(const Tensor& codes, const Var& assignments, const Var& tables, const Var& values,
                        const Var& log_decay, const Offsets& offsets, const HistogramAttentionOptions& options) {
  const bool differentiated = assignments.defined() && recording(assignments);
  const detail::HistogramCall call = detail::check_histogram_attention(codes, assignments, tables, values, log_decay,
                                                                       offsets, options, differentiated);
  Tensor output = call.forward();
  if (!recording(assignments, tables, values, log_decay)) return output;
  HistogramAttentionRule rule{Saved(call.codes),
                              Saved(call.assignments),
                              Saved(call.tables),
                              Saved(call.values),
                              Saved(log_decay.value()),
                              Saved(offsets.tensor()),
                              offsets,
                              call.options,
                              log_decay.defined() ? log_decay.shape() : Shape{}};
  return record(std::move(rule), {&assignments, &tables, &values, &log_decay}, std::move(output));
}

}  // namespace tally::ops
