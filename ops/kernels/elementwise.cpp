// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/elementwise.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <cmath>
#include <limits>

#include "tally/ops/kernels/elementwise.h"
#include "tally/ops/kernels/map-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

void unary_f32(UnaryOp op, const float* x, float* y, std::int64_t n, const UnaryConstants& constants) {
  const Floats d;
  const V zero = hn::Zero(d);
  switch (op) {
    case UnaryOp::negate:
      return map(x, y, n, [&](V v) HWY_ATTR { return hn::Neg(v); });
    case UnaryOp::absolute:
      return map(x, y, n, [&](V v) HWY_ATTR { return hn::Abs(v); });
    case UnaryOp::exp:
      return map(x, y, n, [&](V v) HWY_ATTR { return simd::exp(d, v); });
    case UnaryOp::log:
      return map(x, y, n, [&](V v) HWY_ATTR { return simd::log(d, v); });
    case UnaryOp::square:
      return map(x, y, n, [&](V v) HWY_ATTR { return hn::Mul(v, v); });
    case UnaryOp::sqrt:
      return map(x, y, n, [&](V v) HWY_ATTR { return hn::Sqrt(v); });
    case UnaryOp::tanh:
      return map(x, y, n, [&](V v) HWY_ATTR { return simd::tanh(d, v); });
    case UnaryOp::sigmoid:
      return map(x, y, n, [&](V v) HWY_ATTR { return simd::sigmoid(d, v); });
    case UnaryOp::relu:
      return map(x, y, n, [&](V v) HWY_ATTR { return hn::IfThenZeroElse(hn::Le(v, zero), v); });
    case UnaryOp::gelu:
      return map(x, y, n, [&](V v) HWY_ATTR {
        const V bounded = simd::above_infinity(d, v), usual = hn::Mul(bounded, simd::normal(d, v).distribution);
        // The distribution is denormal before x times it is.
        const auto far = hn::Lt(v, hn::Set(d, -12.0f));
        if (HWY_LIKELY(hn::AllFalse(d, far))) return usual;
        const V scaled = hn::Mul(hn::Mul(bounded, simd::normal<32>(d, v).distribution), hn::Set(d, 0x1p-32f));
        return hn::IfThenElse(far, scaled, usual);
      });
    case UnaryOp::silu:
      return map(x, y, n, [&](V v) HWY_ATTR {
        // Below -80 the sigmoid, e^x, is denormal before x e^x is: it goes by e^(x + 24), whose argument is exact.
        const V bounded = simd::above_infinity(d, v), grown = simd::exp(d, hn::Add(v, hn::Set(d, 24.0f)));
        return hn::IfThenElse(hn::Lt(v, hn::Set(d, -80.0f)),
                              hn::Mul(hn::Mul(bounded, grown), hn::Set(d, 3.775134544279098e-11f)),
                              hn::Mul(bounded, simd::sigmoid(d, v)));
      });
    case UnaryOp::softplus:
      return map(x, y, n, [&](V v) HWY_ATTR { return simd::softplus(d, v); });
    case UnaryOp::sign:
      return map(x, y, n, [&](V v) HWY_ATTR {
        const V magnitude = hn::IfThenElse(hn::IsNaN(v), v, hn::Set(d, 1.0f));
        return hn::IfThenZeroElse(hn::Eq(v, zero), hn::CopySign(magnitude, v));
      });
    case UnaryOp::sin:
      return map(x, y, n, [&](V v) HWY_ATTR { return simd::sin(d, v); });
    case UnaryOp::cos:
      return map(x, y, n, [&](V v) HWY_ATTR { return simd::cos(d, v); });
    case UnaryOp::erf:
      return map(x, y, n, [&](V v) HWY_ATTR { return simd::erf(d, v); });
    case UnaryOp::log1p:
      return map(x, y, n, [&](V v) HWY_ATTR { return simd::log1p(d, v); });
    case UnaryOp::expm1:
      return map(x, y, n, [&](V v) HWY_ATTR { return simd::expm1(d, v); });
    case UnaryOp::elu: {
      const V alpha = hn::Set(d, static_cast<float>(constants.alpha));
      return map(x, y, n,
                 [&](V v) HWY_ATTR { return hn::IfThenElse(hn::Gt(v, zero), v, hn::Mul(alpha, simd::expm1(d, v))); });
    }
    case UnaryOp::power: {
      const auto exponent = static_cast<float>(constants.exponent);
      for (std::int64_t i = 0; i < n; ++i) y[i] = std::pow(x[i], exponent);
      return;
    }
    case UnaryOp::clamp: {
      const V low = hn::Set(d, static_cast<float>(constants.low)),
              high = hn::Set(d, static_cast<float>(constants.high));
      return map(x, y, n, [&](V v) HWY_ATTR {
        return hn::IfThenElse(hn::Lt(v, low), low, hn::IfThenElse(hn::Gt(v, high), high, v));
      });
    }
  }
}

void unary_backward_f32(UnaryOp op, const float* gy, const float* saved, float* gx, std::int64_t n,
                        const UnaryConstants& constants) {
  const Floats d;
  const V zero = hn::Zero(d), one = hn::Set(d, 1.0f);
  switch (op) {
    case UnaryOp::negate:
      return map(gy, gx, n, [&](V g) HWY_ATTR { return hn::Neg(g); });
    case UnaryOp::absolute:
      return map(gy, saved, gx, n, [&](V g, V x) HWY_ATTR {
        return hn::IfThenElse(hn::Lt(x, zero), hn::Neg(g), hn::IfThenZeroElse(hn::Eq(x, zero), g));
      });
    case UnaryOp::exp:
      return map(gy, saved, gx, n, [&](V g, V y) HWY_ATTR { return hn::Mul(g, y); });
    case UnaryOp::log:
      return map(gy, saved, gx, n, [&](V g, V x) HWY_ATTR { return hn::Div(g, x); });
    case UnaryOp::square:
      return map(gy, saved, gx, n, [&](V g, V x) HWY_ATTR { return hn::Mul(g, hn::Add(x, x)); });
    case UnaryOp::sqrt:
      return map(gy, saved, gx, n, [&](V g, V y) HWY_ATTR { return hn::Div(g, hn::Add(y, y)); });
    case UnaryOp::tanh:
      return map(gy, saved, gx, n,
                 [&](V g, V y) HWY_ATTR { return hn::Mul(g, hn::Mul(hn::Sub(one, y), hn::Add(one, y))); });
    case UnaryOp::sigmoid:
      return map(gy, saved, gx, n, [&](V g, V y) HWY_ATTR { return hn::Mul(g, hn::Mul(y, hn::Sub(one, y))); });
    case UnaryOp::relu:
      return map(gy, saved, gx, n, [&](V g, V y) HWY_ATTR { return hn::IfThenZeroElse(hn::Le(y, zero), g); });
    case UnaryOp::gelu:
      return map(gy, saved, gx, n, [&](V g, V x) HWY_ATTR {
        const auto at = simd::normal(d, x);
        const V bounded = hn::Max(hn::Min(x, hn::Set(d, 20.0f)), hn::Set(d, -20.0f));  // the density is 0 beyond
        return hn::Mul(g, hn::MulAdd(bounded, at.density, at.distribution));
      });
    case UnaryOp::silu:
      return map(gy, saved, gx, n, [&](V g, V x) HWY_ATTR {
        const V s = simd::sigmoid(d, x);
        // sigmoid(-x) keeps the digits that 1 - s would lose; beyond 100 either s or it is 0.
        const V bounded = hn::Max(hn::Min(x, hn::Set(d, 100.0f)), hn::Set(d, -100.0f));
        return hn::Mul(g, hn::Mul(s, hn::MulAdd(bounded, simd::sigmoid(d, hn::Neg(x)), one)));
      });
    case UnaryOp::softplus:
      return map(gy, saved, gx, n, [&](V g, V x) HWY_ATTR { return hn::Mul(g, simd::sigmoid(d, x)); });
    case UnaryOp::sign:
      return map(gy, gx, n, [&](V) HWY_ATTR { return zero; });
    case UnaryOp::sin:
      return map(gy, saved, gx, n, [&](V g, V x) HWY_ATTR { return hn::Mul(g, simd::cos(d, x)); });
    case UnaryOp::cos:
      return map(gy, saved, gx, n, [&](V g, V x) HWY_ATTR { return hn::Mul(hn::Neg(g), simd::sin(d, x)); });
    case UnaryOp::erf: {
      const V factor = hn::Set(d, 1.12837916709551257f);
      return map(gy, saved, gx, n,
                 [&](V g, V x) HWY_ATTR { return hn::Mul(g, hn::Mul(factor, simd::exp(d, hn::Neg(hn::Mul(x, x))))); });
    }
    case UnaryOp::log1p:
      return map(gy, saved, gx, n, [&](V g, V x) HWY_ATTR { return hn::Div(g, hn::Add(one, x)); });
    case UnaryOp::expm1:
      return map(gy, saved, gx, n, [&](V g, V x) HWY_ATTR { return hn::Mul(g, simd::exp(d, x)); });
    case UnaryOp::elu: {
      const V alpha = hn::Set(d, static_cast<float>(constants.alpha));
      return map(gy, saved, gx, n, [&](V g, V x) HWY_ATTR {
        return hn::IfThenElse(hn::Gt(x, zero), g, hn::Mul(g, hn::Mul(alpha, simd::exp(d, x))));
      });
    }
    case UnaryOp::power: {
      if (constants.exponent == 0) return map(gy, gx, n, [&](V) HWY_ATTR { return zero; });
      const auto exponent = static_cast<float>(constants.exponent), less = static_cast<float>(constants.exponent - 1);
      for (std::int64_t i = 0; i < n; ++i) {
        const float slope = exponent * std::pow(saved[i], less);
        // A slope beyond f32 times a small gradient need not be: in double it is not.
        gx[i] = std::isfinite(slope)
                    ? gy[i] * slope
                    : static_cast<float>(static_cast<double>(gy[i]) * constants.exponent *
                                         std::pow(static_cast<double>(saved[i]), constants.exponent - 1));
      }
      return;
    }
    case UnaryOp::clamp: {
      const V low = hn::Set(d, static_cast<float>(constants.low)),
              high = hn::Set(d, static_cast<float>(constants.high));
      return map(gy, saved, gx, n,
                 [&](V g, V x) HWY_ATTR { return hn::IfThenZeroElse(hn::Or(hn::Lt(x, low), hn::Gt(x, high)), g); });
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {
HWY_EXPORT(unary_f32);
HWY_EXPORT(unary_backward_f32);

constexpr double kSqrtHalf = 0.70710678118654752440;
constexpr double kInverseSqrtTwoPi = 0.39894228040143267794;
constexpr double kTwoOverSqrtPi = 1.12837916709551257390;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
/// P(X <= x) of the standard normal distribution.
double normal_distribution(double x) { return 0.5 * std::erfc(-x * kSqrtHalf); }
/// x, or the lowest finite number for -infinity: see simd_math-inl.h.
double above_infinity(double x) {
  return x == -std::numeric_limits<double>::infinity() ? std::numeric_limits<double>::lowest() : x;
}

double evaluate(UnaryOp op, double x, const UnaryConstants& constants) {
  switch (op) {
    case UnaryOp::negate:
      return -x;
    case UnaryOp::absolute:
      return std::fabs(x);
    case UnaryOp::exp:
      return std::exp(x);
    case UnaryOp::log:
      return std::log(x);
    case UnaryOp::square:
      return x * x;
    case UnaryOp::sqrt:
      return std::sqrt(x);
    case UnaryOp::tanh:
      return std::tanh(x);
    case UnaryOp::sigmoid:
      return sigmoid(x);
    case UnaryOp::relu:
      return x <= 0 ? 0 : x;
    case UnaryOp::gelu:
      return above_infinity(x) * normal_distribution(x);
    case UnaryOp::silu:
      return above_infinity(x) * sigmoid(x);
    case UnaryOp::softplus:
      return (x < 0 ? 0 : x) + std::log1p(std::exp(-std::fabs(x)));
    case UnaryOp::sign:
      return std::isnan(x) ? x : static_cast<double>((x > 0) - (x < 0));
    case UnaryOp::sin:
      return std::sin(x);
    case UnaryOp::cos:
      return std::cos(x);
    case UnaryOp::erf:
      return std::erf(x);
    case UnaryOp::log1p:
      return std::log1p(x);
    case UnaryOp::expm1:
      return std::expm1(x);
    case UnaryOp::elu:
      return x > 0 ? x : constants.alpha * std::expm1(x);
    case UnaryOp::power:
      return std::pow(x, constants.exponent);
    case UnaryOp::clamp:
      return x < constants.low ? constants.low : x > constants.high ? constants.high : x;
  }
  return x;
}

/// Derivative from the input or output, as derivative_of(op) says.
double derivative(UnaryOp op, double saved, const UnaryConstants& constants) {
  switch (op) {
    case UnaryOp::negate:
      return -1;
    case UnaryOp::absolute:
      return saved < 0 ? -1 : saved == 0 ? 0 : 1;
    case UnaryOp::exp:
      return saved;
    case UnaryOp::log:
      return 1 / saved;
    case UnaryOp::square:
      return 2 * saved;
    case UnaryOp::sqrt:
      return 0.5 / saved;
    case UnaryOp::tanh:
      return (1 - saved) * (1 + saved);
    case UnaryOp::sigmoid:
      return saved * (1 - saved);
    case UnaryOp::relu:
      return saved <= 0 ? 0 : 1;
    case UnaryOp::gelu: {
      const double bounded = saved < -40 ? -40 : saved > 40 ? 40 : saved;  // the density is 0 beyond
      return normal_distribution(saved) + bounded * (kInverseSqrtTwoPi * std::exp(-0.5 * bounded * bounded));
    }
    case UnaryOp::silu: {
      const double bounded = saved < -800 ? -800 : saved > 800 ? 800 : saved;
      return sigmoid(saved) * (1 + bounded * sigmoid(-saved));
    }
    case UnaryOp::softplus:
      return sigmoid(saved);
    case UnaryOp::sign:
      return 0;
    case UnaryOp::sin:
      return std::cos(saved);
    case UnaryOp::cos:
      return -std::sin(saved);
    case UnaryOp::erf:
      return kTwoOverSqrtPi * std::exp(-saved * saved);
    case UnaryOp::log1p:
      return 1 / (1 + saved);
    case UnaryOp::expm1:
      return std::exp(saved);
    case UnaryOp::elu:
      return saved > 0 ? 1 : constants.alpha * std::exp(saved);
    case UnaryOp::power:
      return constants.exponent == 0 ? 0 : constants.exponent * std::pow(saved, constants.exponent - 1);
    case UnaryOp::clamp:
      return saved < constants.low || saved > constants.high ? 0 : 1;
  }
  return 0;
}

}  // namespace

DerivativeOf derivative_of(UnaryOp op) {
  switch (op) {
    case UnaryOp::negate:
    case UnaryOp::sign:
      return DerivativeOf::nothing;
    case UnaryOp::exp:
    case UnaryOp::sqrt:
    case UnaryOp::tanh:
    case UnaryOp::sigmoid:
    case UnaryOp::relu:
      return DerivativeOf::output;
    default:
      return DerivativeOf::input;
  }
}

void unary(UnaryOp op, const float* x, float* y, std::int64_t n, const UnaryConstants& constants) {
  HWY_DYNAMIC_DISPATCH(unary_f32)(op, x, y, n, constants);
}
void unary(UnaryOp op, const double* x, double* y, std::int64_t n, const UnaryConstants& constants) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = evaluate(op, x[i], constants);
}

void unary_backward(UnaryOp op, const float* gy, const float* saved, float* gx, std::int64_t n,
                    const UnaryConstants& constants) {
  HWY_DYNAMIC_DISPATCH(unary_backward_f32)(op, gy, saved, gx, n, constants);
}
void unary_backward(UnaryOp op, const double* gy, const double* saved, double* gx, std::int64_t n,
                    const UnaryConstants& constants) {
  for (std::int64_t i = 0; i < n; ++i) gx[i] = gy[i] * derivative(op, saved == nullptr ? 0 : saved[i], constants);
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
