#include "tally/autograd/gradient_check.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "tally/autograd/numeric_derivative.h"

namespace tally {
namespace {

constexpr std::string_view kWhere = "gradient check";
constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

bool is_zero(double value) { return value == 0; }

/// The floating outputs of one evaluation, contiguous: what is differentiated.
std::vector<Tensor> floating_values(const std::vector<Var>& outputs) {
  std::vector<Tensor> values;
  for (const Var& output : outputs) {
    if (output.defined() && is_floating(output.dtype())) values.push_back(output.value().contiguous());
  }
  return values;
}

std::vector<Tensor> evaluate(const CheckedFunction& f) {
  const Paused paused;
  std::vector<Tensor> values = floating_values(f());
  for (Tensor& value : values) {
    check<DTypeError>(value.dtype() == DType::f64, kWhere, "needs f64 outputs; got ", value.dtype(), value.shape());
    value = value.clone();  // it may be a view of a leaf, which is about to move
  }
  return values;
}

std::vector<Tensor> draw_cotangents(const std::vector<Tensor>& outputs, RngKey key) {
  std::vector<Tensor> cotangents;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    Tensor cotangent(outputs[k].shape(), DType::f64);
    fill_normal(key.fold_in("cotangent").fold_in(k), cotangent, 0, 1);
    cotangents.push_back(std::move(cotangent));
  }
  return cotangents;
}

Gradients differentiate(const CheckedFunction& f, const std::vector<Tensor>& cotangents) {
  Tape tape;
  std::vector<Var> outputs;
  {
    const Recording on(tape);
    for (const Var& output : f()) {
      if (output.defined() && is_floating(output.dtype())) outputs.push_back(output);
    }
  }
  return tape.backward(outputs, cotangents);
}

/// <cotangents, moved - base>, difference first: what does not move does not blur it.
Change change_between(const std::vector<Tensor>& moved, const std::vector<Tensor>& base,
                      const std::vector<Tensor>& cotangents) {
  check<ShapeError>(moved.size() == base.size(), kWhere, "needs a function with a fixed number of outputs; got ",
                    base.size(), ", then ", moved.size());
  Change change;
  for (std::size_t k = 0; k < base.size(); ++k) {
    check<ShapeError>(moved[k].shape() == base[k].shape(), kWhere, "needs outputs of a fixed shape; output ", k,
                      " was ", base[k].shape(), ", then ", moved[k].shape());
    const std::span<const double> to = moved[k].span<double>(), from = base[k].span<double>();
    const std::span<const double> weight = cotangents[k].span<double>();
    for (std::size_t i = 0; i < from.size(); ++i) {
      if (to[i] == from[i]) continue;
      change.value += weight[i] * (to[i] - from[i]);
      change.rounding += kEpsilon * std::abs(weight[i]) * std::max(std::abs(to[i]), std::abs(from[i]));
    }
  }
  return change;
}

/// Moves one element of a leaf; puts it back at the end of its scope, whatever happens in between.
class Nudge {
 public:
  Nudge(Tensor& tensor, std::int64_t index)
      : element_(tensor.mutable_data<double>() + index), tensor_(tensor), start_(*element_) {}
  ~Nudge() { *element_ = start_; }
  Nudge(const Nudge&) = delete;
  Nudge& operator=(const Nudge&) = delete;

  double start() const { return start_; }
  /// Moves it by `delta` from where it started; returns how far it really went.
  double move(double delta) {
    tensor_.mutable_data<double>();  // a new version: nothing may take an earlier evaluation for this one
    *element_ = start_ + delta;
    return *element_ - start_;
  }

 private:
  double* element_;
  Tensor& tensor_;
  double start_;
};

/// Ascending; all of them when there are no more than `most`.
std::vector<std::int64_t> sample_elements(std::int64_t total, std::int64_t most, RngKey key) {
  std::set<std::int64_t> chosen;
  if (total <= most) {
    for (std::int64_t i = 0; i < total; ++i) chosen.insert(i);
  }
  for (std::uint64_t draw = 0; static_cast<std::int64_t>(chosen.size()) < std::min(total, most); ++draw) {
    chosen.insert(static_cast<std::int64_t>(uniform_below(key, 0, draw, static_cast<std::uint64_t>(total))));
  }
  return {chosen.begin(), chosen.end()};
}

/// Analytic and numeric gradient over the elements that were compared.
struct Comparison {
  double analytic_squares = 0, numeric_squares = 0, product = 0;
  std::int64_t compared = 0, failed = 0;

  void add(double analytic, double numeric) {
    analytic_squares += analytic * analytic;
    numeric_squares += numeric * numeric;
    product += analytic * numeric;
    ++compared;
  }
  /// Both gradients are zero, but for rounding: their direction means nothing.
  bool nothing(double atol) const {
    const double least = atol * atol * static_cast<double>(compared);
    return analytic_squares <= least && numeric_squares <= least;
  }
  double cosine(double atol) const {
    if (nothing(atol)) return 1;
    if (is_zero(analytic_squares) || is_zero(numeric_squares)) return 0;
    return product / std::sqrt(analytic_squares) / std::sqrt(numeric_squares);
  }
  double norm_ratio(double atol) const {
    return nothing(atol) ? 1 : std::sqrt(analytic_squares) / std::sqrt(numeric_squares);
  }
};

bool close_to(double a, double b) { return std::abs(a - b) <= 1e-6 * std::abs(b); }

/// What a wrong gradient looks like, in words.
std::string recognise(const LeafReport& leaf, const Comparison& seen, const std::vector<Tensor>& outputs,
                      bool reached) {
  if (!std::isfinite(seen.analytic_squares)) return "the analytic gradient is not finite";
  if (is_zero(seen.analytic_squares)) {
    return reached ? "the analytic gradient is zero" : "no gradient reaches it: its part of backward is missing";
  }
  if (is_zero(seen.numeric_squares)) return "the function does not depend on it, yet it gets a gradient";
  const double ratio = leaf.norm_ratio;
  if (1 - std::abs(leaf.cosine) < 1e-12 && !close_to(ratio, 1)) {
    const std::string sign = leaf.cosine < 0 ? "the sign is wrong, and " : "";
    if (close_to(ratio, 2)) return sign + "it is twice what it should be: something is added twice";
    if (close_to(ratio, 0.5)) return sign + "it is half of what it should be: a factor 2 is missing";
    std::vector<std::int64_t> sizes{leaf.total};
    for (const std::int64_t size : leaf.shape) sizes.push_back(size);
    for (const Tensor& output : outputs) {
      sizes.push_back(output.numel());
      for (const std::int64_t size : output.shape()) sizes.push_back(size);
    }
    for (const std::int64_t size : sizes) {
      if (size > 1 && (close_to(ratio, static_cast<double>(size)) || close_to(ratio, 1 / static_cast<double>(size)))) {
        return detail::join(
            sign, "it is ", ratio > 1 ? "" : "1 / ", size,
            " of what it should be, the size of a dimension: ", "a mean taken for a sum, or the reverse");
      }
    }
    return detail::join(sign, "it is ", ratio, " times what it should be: a constant factor is wrong");
  }
  if (leaf.cosine < -1 + 1e-9) return "the sign is wrong";
  if (seen.failed * 4 <= seen.compared) {
    return detail::join("only ", seen.failed, " of ", seen.compared,
                        " elements differ: look at borders, ties and repeated indices");
  }
  if (leaf.cosine > 0.9999) return "nearly right: a small term is missing or imprecise";
  return "it points elsewhere: a term is missing or belongs to another input";
}

class Check {
 public:
  Check(const CheckedFunction& f, const GradientCheckOptions& options)
      : options_(options), numeric_function_(options.surrogate ? options.surrogate : f), outputs_(evaluate(f)) {
    cotangents_ = draw_cotangents(outputs_, options.key);
    analytic_ = differentiate(f, cotangents_);
    again_ = differentiate(f, cotangents_);
    const std::vector<Tensor> second = evaluate(f);
    repeatable_ = second.size() == outputs_.size();
    for (std::size_t k = 0; repeatable_ && k < second.size(); ++k) repeatable_ = identical(second[k], outputs_[k]);
    base_ = options.surrogate ? evaluate(options.surrogate) : outputs_;
    if (options.surrogate) check_surrogate_value();
  }

  LeafReport run(const CheckedLeaf& leaf, std::uint64_t position) {
    check<DTypeError>(leaf.value.dtype() == DType::f64, kWhere, "needs leaves in f64; '", leaf.name, "' is ",
                      leaf.value.dtype());
    LeafReport report;
    report.name = leaf.name;
    report.shape = leaf.value.shape();
    report.total = leaf.value.numel();
    const std::optional<Tensor> gradient = gradient_of(analytic_, leaf), repeated = gradient_of(again_, leaf);
    report.deterministic =
        repeatable_ && gradient.has_value() == repeated.has_value() && (!gradient || identical(*gradient, *repeated));
    if (base_.empty()) {
      report.verdict = GradientVerdict::not_differentiable;
      return report;
    }
    Tensor value = leaf.value;  // shares the storage
    Comparison seen;
    for (const std::int64_t index :
         sample_elements(report.total, options_.max_elements, options_.key.fold_in("elements").fold_in(position))) {
      const double analytic = (gradient ? gradient->data<double>()[index] : 0.0) * options_.injected_bug;
      compare(report, seen, value, index, analytic);
    }
    conclude(report, seen, gradient.has_value());
    return report;
  }

 private:
  static std::optional<Tensor> gradient_of(const Gradients& gradients, const CheckedLeaf& leaf) {
    const Gradient* found = gradients.find(leaf.id);
    if (found == nullptr) return std::nullopt;
    const Tensor dense = to_dense(*found).contiguous();
    check<AutogradError>(dense.shape() == leaf.value.shape() && dense.dtype() == leaf.value.dtype(), kWhere, "leaf '",
                         leaf.name, "' of ", leaf.value.dtype(), leaf.value.shape(), " got a gradient of ",
                         dense.dtype(), dense.shape());
    return dense;
  }

  void check_surrogate_value() {
    check<ShapeError>(base_.size() == outputs_.size(), kWhere, "needs a surrogate with ", outputs_.size(),
                      " outputs; got ", base_.size());
    for (std::size_t k = 0; k < base_.size(); ++k) {
      check<ShapeError>(base_[k].shape() == outputs_[k].shape(), kWhere,
                        "needs a surrogate with the function's shapes; output ", k, " is ", outputs_[k].shape(),
                        " and the surrogate's ", base_[k].shape());
      for (std::int64_t i = 0; i < base_[k].numel(); ++i) {
        const double wanted = outputs_[k].data<double>()[i], got = base_[k].data<double>()[i];
        if (!(std::abs(got - wanted) <= options_.atol + options_.rtol * std::abs(wanted))) surrogate_fits_ = false;
      }
    }
  }

  void compare(LeafReport& report, Comparison& seen, Tensor& value, std::int64_t index, double analytic) {
    Nudge nudge(value, index);
    const double scale = std::max(1.0, std::abs(nudge.start()));
    const NumericDerivative numeric = numeric_derivative(
        [&](double delta) {
          const double moved = nudge.move(delta);
          Change change = change_between(evaluate(numeric_function_), base_, cotangents_);
          change.value *= delta / moved;
          return change;
        },
        {options_.step * scale, options_.richardson_step * scale, options_.rtol, options_.atol});
    ++report.checked;
    const double tolerance = options_.atol + options_.rtol * std::abs(numeric.value);
    const double error = std::abs(analytic - numeric.value);
    if (numeric.kink) {
      ++report.kinks;
      // Any value between the slopes is a convention; outside it is a mistake.
      const double slack = tolerance + numeric.error;
      if (analytic >= std::min(numeric.left, numeric.right) - slack &&
          analytic <= std::max(numeric.left, numeric.right) + slack) {
        return;
      }
    } else if (!(numeric.error <= tolerance) && !(error > 10 * numeric.error)) {
      if (std::isfinite(analytic)) {
        ++report.noisy;
        report.numeric_error = std::max(report.numeric_error, numeric.error);
        return;
      }
    }
    seen.add(analytic, numeric.value);
    const double scaled = error / tolerance;
    const bool failed = !(scaled <= 1);
    seen.failed += failed;
    report.max_absolute = std::max(report.max_absolute, error);
    if (!is_zero(numeric.value)) report.max_relative = std::max(report.max_relative, error / std::abs(numeric.value));
    if (report.worst.empty() || failed || scaled > report.worst[0].scaled) {
      if (report.worst.empty() || !(scaled <= report.worst[0].scaled)) report.numeric_error = numeric.error;
      report.worst.push_back({index, analytic, numeric.value, failed && !(scaled > 1) ? HUGE_VAL : scaled});
      std::stable_sort(report.worst.begin(), report.worst.end(),
                       [](const ElementError& a, const ElementError& b) { return a.scaled > b.scaled; });
      if (report.worst.size() > 5) report.worst.pop_back();
    }
    report.max_scaled = report.worst[0].scaled;
  }

  void conclude(LeafReport& report, const Comparison& seen, bool reached) const {
    report.cosine = seen.cosine(options_.atol);
    report.norm_ratio = seen.norm_ratio(options_.atol);
    const bool too_many_kinks = report.kinks > 1 && static_cast<double>(report.kinks) >
                                                        options_.kink_fraction * static_cast<double>(report.checked);
    report.verdict = GradientVerdict::fail;
    if (!report.deterministic) {
      report.hint = repeatable_ ? "a second backward gives other bits"
                                : "the function gives other values when it is called again: key its random draws";
    } else if (!surrogate_fits_) {
      report.hint = "the surrogate's value differs from the function's at the base point";
    } else if (seen.failed > 0) {
      report.hint = recognise(report, seen, outputs_, reached);
    } else if (too_many_kinks) {
      report.hint = detail::join(report.kinks, " of ", report.checked, " elements lie on a kink: move the inputs");
    } else if (report.noisy > 0) {
      report.verdict = GradientVerdict::noise;
      report.hint = "the numeric derivative is less precise than the tolerance";
    } else {
      report.verdict = report.kinks > 0 ? GradientVerdict::kink : GradientVerdict::ok;
    }
  }

  const GradientCheckOptions& options_;
  CheckedFunction numeric_function_;
  std::vector<Tensor> outputs_, base_, cotangents_;
  Gradients analytic_, again_;
  bool repeatable_ = true, surrogate_fits_ = true;
};

}  // namespace

const char* name_of(GradientVerdict verdict) {
  switch (verdict) {
    case GradientVerdict::ok:
      return "OK";
    case GradientVerdict::fail:
      return "FAIL";
    case GradientVerdict::kink:
      return "KINK";
    case GradientVerdict::noise:
      return "NOISE";
    case GradientVerdict::not_differentiable:
      break;
  }
  return "NODIFF";
}

bool GradientReport::failed() const {
  return std::any_of(leaves.begin(), leaves.end(),
                     [](const LeafReport& r) { return r.verdict == GradientVerdict::fail; });
}

bool GradientReport::inconclusive() const {
  return !failed() && std::any_of(leaves.begin(), leaves.end(),
                                  [](const LeafReport& r) { return r.verdict == GradientVerdict::noise; });
}

bool GradientReport::passed() const { return !failed() && !inconclusive(); }

GradientReport check_gradients(const CheckedFunction& f, const std::vector<CheckedLeaf>& leaves,
                               const GradientCheckOptions& options) {
  const Paused paused;
  for (const CheckedLeaf& leaf : leaves) {
    check<DTypeError>(leaf.value.dtype() == DType::f64, kWhere, "needs leaves in f64; '", leaf.name, "' is ",
                      leaf.value.dtype());
  }
  Check check(f, options);
  GradientReport report;
  for (std::size_t i = 0; i < leaves.size(); ++i) report.leaves.push_back(check.run(leaves[i], i));
  return report;
}

}  // namespace tally
