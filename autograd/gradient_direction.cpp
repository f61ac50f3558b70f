#include "tally/autograd/gradient_direction.h"

#include <algorithm>
#include <cmath>

namespace tally::detail {
namespace {

/// Gradients below this share of their root mean square are moved as far as a single element would be.
constexpr double kSmallGradient = 1e-4;

/// Puts the elements back at the end of its scope, whatever happens in between.
class Excursion {
 public:
  Excursion(const std::vector<Moving>& parts, std::int64_t begin, std::int64_t end) : begin_(begin) {
    for (const Moving& part : parts) {
      const std::int64_t last = std::min(end, part.leaf.numel());
      const std::span<const double> values = part.leaf.span<double>();
      parts_.push_back({part.leaf, &part.weights, {}});
      if (begin < last) parts_.back().start.assign(values.begin() + begin, values.begin() + last);
    }
  }
  ~Excursion() { move(0); }
  Excursion(const Excursion&) = delete;
  Excursion& operator=(const Excursion&) = delete;

  void move(double delta) {
    for (Part& part : parts_) {
      double* to = part.leaf.mutable_data<double>() + begin_;
      const double* weights = part.weights->data() + begin_;
      for (std::size_t i = 0; i < part.start.size(); ++i) to[i] = part.start[i] + delta * weights[i];
    }
  }

 private:
  struct Part {
    Tensor leaf;
    const std::vector<double>* weights;
    std::vector<double> start;
  };
  std::int64_t begin_;
  std::vector<Part> parts_;
};

}  // namespace

double absolute_tolerance(const CheckedCall& call, const NumericDerivative& numeric, double step,
                          const GradientCheckOptions& options) {
  // Nothing moved: what is too small to move anything is not known to be zero.
  const double hidden = numeric.value == 0 && numeric.error == 0 ? call.resolution() / step : 0;
  // The analytic gradient rounds too: a zero that it reaches by cancellation need not be one to the last bit.
  return std::min(options.atol, 10 * numeric.error + hidden + 1e-4 * options.atol);
}

std::vector<double> direction_weights(const Tensor& leaf, const std::vector<double>& gradient, DirectionScale scale,
                                      RngKey key) {
  const std::span<const double> values = leaf.span<double>();
  double squares = 0;
  for (const double each : gradient) {
    if (std::isfinite(each)) squares += each * each;
  }
  const double small = kSmallGradient * std::sqrt(squares / std::max<double>(static_cast<double>(values.size()), 1));
  Tensor drawn(leaf.shape(), DType::f64);
  fill_uniform(key, drawn, -1, 1);
  std::vector<double> weights(values.size());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double draw = drawn.data<double>()[i];
    weights[i] = (draw < 0 ? draw - 1 : draw + 1) / 2 * std::max(1.0, std::abs(values[i]));
    if (scale == DirectionScale::gradients && i < gradient.size() && std::abs(gradient[i]) > small) {
      weights[i] *= small / std::abs(gradient[i]);
    }
  }
  return weights;
}

double DirectionalDerivative::scaled() const {
  const double error = std::abs(analytic - numeric) / tolerance;
  return std::isnan(error) ? HUGE_VAL : error;
}

DirectionalDerivative derivative_along(const CheckedCall& call, const std::vector<Moving>& parts, std::int64_t begin,
                                       std::int64_t end, const GradientCheckOptions& options) {
  DirectionalDerivative result;
  double squares = 0;
  for (const Moving& part : parts) {
    const auto last = static_cast<std::size_t>(std::min<std::int64_t>(end, std::ssize(part.gradient)));
    for (auto i = static_cast<std::size_t>(begin); i < last; ++i) {
      const double contribution = part.gradient[i] * part.weights[i];
      result.analytic += contribution;
      squares += contribution * contribution;
    }
  }
  Excursion excursion(parts, begin, end);
  const double relative = std::isfinite(squares) ? options.rtol * std::sqrt(squares) : 0;
  const NumericDerivative numeric = numeric_derivative(
      [&](double delta) {
        excursion.move(delta);
        return call.change();
      },
      {options.step, options.richardson_step, 0, relative + options.atol});
  result.numeric = numeric.value;
  result.tolerance = relative + absolute_tolerance(call, numeric, options.richardson_step / 4, options);
  const bool unmeasurable = !(numeric.error <= relative + options.atol) && std::isfinite(result.analytic);
  const double error = std::abs(result.analytic - result.numeric);
  result.measured = !numeric.kink && !(unmeasurable && !(error > 10 * numeric.error));
  return result;
}

}  // namespace tally::detail
