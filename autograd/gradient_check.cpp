#include "tally/autograd/gradient_check.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "tally/autograd/checked_call.h"
#include "tally/autograd/gradient_direction.h"

namespace tally {
namespace {

using detail::derivative_along;
using detail::direction_weights;
using detail::DirectionalDerivative;
using detail::DirectionScale;
using detail::Moving;

constexpr std::string_view kWhere = "gradient check";
bool is_zero(double value) { return value == 0; }

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
  std::optional<DirectionalDerivative> along;  ///< one that differs and could not be traced to an element

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
  Check(const CheckedFunction& f, const GradientCheckOptions& options) : options_(options), call_(f, options) {}

  LeafReport run(const CheckedLeaf& leaf, std::uint64_t position) {
    LeafReport report;
    report.name = leaf.name;
    report.shape = leaf.value.shape();
    report.total = leaf.value.numel();
    const std::optional<Tensor> gradient = call_.gradient_of(leaf), repeated = call_.gradient_of(leaf, true);
    report.deterministic = call_.repeatable() && gradient.has_value() == repeated.has_value() &&
                           (!gradient || identical(*gradient, *repeated));
    if (call_.without_outputs()) {
      report.verdict = GradientVerdict::not_differentiable;
      return report;
    }
    Moving moving{leaf.value, std::vector<double>(static_cast<std::size_t>(report.total)), {}};
    if (gradient) {
      const std::span<const double> values = gradient->span<double>();
      for (std::size_t i = 0; i < values.size(); ++i) moving.gradient[i] = values[i] * options_.injected_bug;
    }
    Comparison seen;
    const std::vector<std::int64_t> chosen =
        sample_elements(report.total, options_.max_elements, options_.key.fold_in("elements").fold_in(position));
    for (const std::int64_t index : chosen) compare(report, seen, moving, index);
    const bool all = report.checked == report.total;
    if (!all && !options_.at_kinks) {
      move_all(report, seen, moving, options_.key.fold_in("directions").fold_in(position));
    }
    conclude(report, seen, gradient.has_value());
    if (report.total > 0) leaves_.push_back(std::move(moving));
    return report;
  }

  /// What the leaves that ran show together and none shows alone; empty when nothing.
  std::optional<LeafReport> run_together() {
    if (leaves_.size() < 2 || options_.at_kinks || call_.without_outputs()) return std::nullopt;
    LeafReport report;
    report.name = "all inputs at once";
    for (std::size_t i = 0; i < leaves_.size(); ++i) {
      report.total += leaves_[i].leaf.numel();
      leaves_[i].weights = direction_weights(leaves_[i].leaf, leaves_[i].gradient, DirectionScale::elements,
                                             options_.key.fold_in("together").fold_in(i));
    }
    const DirectionalDerivative found = derivative_along(call_, leaves_, 0, report.total, options_);
    if (!found.wrong()) return std::nullopt;
    report.shape = {report.total};
    report.directions = 1;
    report.max_absolute = std::abs(found.analytic - found.numeric);
    report.max_scaled = report.max_direction = found.scaled();
    report.worst.push_back({0, found.analytic, found.numeric, found.scaled()});
    report.verdict = GradientVerdict::fail;
    report.hint = "the derivative differs along a direction through all inputs, though not along those of any alone";
    return report;
  }

 private:
  void compare(LeafReport& report, Comparison& seen, Moving& moving, std::int64_t index) {
    const double analytic = moving.gradient[static_cast<std::size_t>(index)];
    Nudge nudge(moving.leaf, index);
    const double scale = std::max(1.0, std::abs(nudge.start()));
    const NumericDerivative numeric = numeric_derivative(
        [&](double delta) {
          const double moved = nudge.move(delta);
          Change change = call_.change();
          change.value *= delta / moved;
          return change;
        },
        {options_.step * scale, options_.richardson_step * scale, options_.rtol, options_.atol});
    ++report.checked;
    const double absolute = detail::absolute_tolerance(call_, numeric, options_.richardson_step * scale / 4, options_);
    double wanted = numeric.value;
    if (numeric.kink) {
      ++report.kinks;
      // Any value between the slopes is a convention; outside it is a mistake, told by the nearer slope.
      const double lower = std::min(numeric.left, numeric.right), upper = std::max(numeric.left, numeric.right);
      const double slack = numeric.error + absolute + options_.rtol * std::abs(numeric.value);
      if (analytic >= lower - slack && analytic <= upper + slack) return;
      wanted = std::abs(analytic - lower) < std::abs(analytic - upper) ? lower : upper;
    }
    const double relative = options_.rtol * std::abs(wanted), tolerance = relative + absolute;
    const double error = std::abs(analytic - wanted);
    if (!numeric.kink && !(numeric.error <= relative + options_.atol) && !(error > 10 * numeric.error)) {
      if (std::isfinite(analytic)) {
        ++report.noisy;
        report.numeric_error = std::max(report.numeric_error, numeric.error);
        return;
      }
    }
    seen.add(analytic, wanted);
    const double scaled = error / tolerance;
    const bool failed = !(scaled <= 1);
    seen.failed += failed;
    report.max_absolute = std::max(report.max_absolute, error);
    if (failed || relative >= absolute) {
      if (!is_zero(wanted)) report.max_relative = std::max(report.max_relative, error / std::abs(wanted));
    }
    if (report.worst.empty() || failed || scaled > report.worst[0].scaled) {
      if (report.worst.empty() || !(scaled <= report.worst[0].scaled)) report.numeric_error = numeric.error;
      report.worst.push_back({index, analytic, wanted, failed && !(scaled > 1) ? HUGE_VAL : scaled});
      std::stable_sort(report.worst.begin(), report.worst.end(),
                       [](const ElementError& a, const ElementError& b) { return a.scaled > b.scaled; });
      if (report.worst.size() > 5) report.worst.pop_back();
    }
    report.max_scaled = report.worst[0].scaled;
  }

  /// Directions through all elements. The first that differs is traced to its element.
  void move_all(LeafReport& report, Comparison& seen, Moving& moving, RngKey key) {
    const std::int64_t total = report.total;
    for (std::int64_t i = 0; i < 2 * options_.directions && seen.failed == 0; ++i) {
      const DirectionScale scale = i % 2 == 0 ? DirectionScale::elements : DirectionScale::gradients;
      moving.weights =
          direction_weights(moving.leaf, moving.gradient, scale, key.fold_in(static_cast<std::uint64_t>(i)));
      const DirectionalDerivative found = derivative_along(call_, {moving}, 0, total, options_);
      if (!found.measured) continue;
      ++report.directions;
      report.max_direction = std::max(report.max_direction, found.scaled());
      if (!found.wrong()) continue;
      trace(report, seen, moving);
      if (seen.failed > 0) continue;
      seen.along = found;
      return;
    }
  }

  /// Halves the elements until a single one differs, and compares that; gives up where neither half does.
  void trace(LeafReport& report, Comparison& seen, Moving& moving) {
    std::int64_t begin = 0, end = report.total;
    while (end - begin > 1) {
      const std::int64_t middle = begin + (end - begin) / 2;
      if (derivative_along(call_, {moving}, begin, middle, options_).wrong()) {
        end = middle;
      } else if (derivative_along(call_, {moving}, middle, end, options_).wrong()) {
        begin = middle;
      } else {
        return;
      }
    }
    compare(report, seen, moving, begin);
  }

  void conclude(LeafReport& report, const Comparison& seen, bool reached) const {
    report.cosine = seen.cosine(options_.atol);
    report.norm_ratio = seen.norm_ratio(options_.atol);
    const bool too_many_kinks =
        !options_.at_kinks && report.kinks > 1 &&
        static_cast<double>(report.kinks) > options_.kink_fraction * static_cast<double>(report.checked);
    report.verdict = GradientVerdict::fail;
    if (!report.deterministic) {
      report.hint = call_.repeatable()
                        ? "a second backward gives other bits"
                        : "the function gives other values when it is called again: key its random draws";
    } else if (!call_.surrogate_fits()) {
      report.hint = "the surrogate's value differs from the function's at the base point";
    } else if (seen.failed > 0) {
      report.hint = recognise(report, seen, call_.outputs(), reached);
    } else if (seen.along) {
      report.hint = detail::join("along a direction through all ", report.total, " elements the derivative is ",
                                 seen.along->numeric, " and by the gradient ", seen.along->analytic,
                                 ", though no single element differs by more than its tolerance");
    } else if (too_many_kinks) {
      report.hint = detail::join(report.kinks, " of ", report.checked, " elements lie on a kink: move the inputs");
    } else if (report.noisy > 0) {
      report.verdict = GradientVerdict::noise;
      report.hint = "the numeric derivative is less precise than the tolerance";
    } else if (report.checked < report.total && report.directions == 0 && options_.directions > 0 &&
               !options_.at_kinks) {
      report.verdict = GradientVerdict::noise;
      report.hint =
          detail::join("only ", report.checked, " of ", report.total,
                       " elements could be checked: along every direction through all there is a kink or noise");
    } else {
      report.verdict = report.kinks > 0 ? GradientVerdict::kink : GradientVerdict::ok;
    }
  }

  const GradientCheckOptions& options_;
  detail::CheckedCall call_;
  std::vector<Moving> leaves_;
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

void check_tolerances(const GradientCheckOptions& options) {
  constexpr double kMost = GradientCheckOptions::kLargestTolerance;
  check<ValueError>(options.rtol >= 0 && options.rtol <= kMost && options.atol > 0 && options.atol <= kMost, kWhere,
                    "needs an rtol in [0, ", kMost, "] and an atol in (0, ", kMost,
                    "], as with more a gradient 0.1 % too large would pass; got rtol ", options.rtol, " and atol ",
                    options.atol);
}

GradientReport check_gradients(const CheckedFunction& f, const std::vector<CheckedLeaf>& leaves,
                               const GradientCheckOptions& options) {
  const Paused paused;
  check_tolerances(options);
  for (const CheckedLeaf& leaf : leaves) {
    check<DTypeError>(leaf.value.dtype() == DType::f64, kWhere, "needs leaves in f64; '", leaf.name, "' is ",
                      leaf.value.dtype());
  }
  Check check(f, options);
  GradientReport report;
  for (std::size_t i = 0; i < leaves.size(); ++i) report.leaves.push_back(check.run(leaves[i], i));
  if (report.failed()) return report;
  if (std::optional<LeafReport> together = check.run_together()) report.leaves.push_back(std::move(*together));
  return report;
}

}  // namespace tally
