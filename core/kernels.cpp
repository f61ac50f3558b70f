// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/core/kernels.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tally/core/exponential-inl.h"
#include "tally/core/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
namespace simd = tally::HWY_NAMESPACE::simd;
using F = hn::ScalableTag<float>;

/// Calls body(i) for whole vectors and returns the index of the first element left over.
template <class Body>
HWY_INLINE std::int64_t vectors(std::int64_t n, Body&& body) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(F()));
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(i);
  return i;
}

void add_into_f32(float* y, const float* x, std::int64_t n) {
  const F d;
  std::int64_t i =
      vectors(n, [&](std::int64_t j) { hn::StoreU(hn::Add(hn::LoadU(d, y + j), hn::LoadU(d, x + j)), d, y + j); });
  for (; i < n; ++i) y[i] += x[i];
}

void axpy_f32(float* y, float a, const float* x, std::int64_t n) {
  const F d;
  const auto va = hn::Set(d, a);
  std::int64_t i = vectors(
      n, [&](std::int64_t j) { hn::StoreU(hn::MulAdd(va, hn::LoadU(d, x + j), hn::LoadU(d, y + j)), d, y + j); });
  // Single lanes of the same instruction (fused or not), so that an element's value does not depend on its place.
  const hn::CappedTag<float, 1> lane;
  for (; i < n; ++i) {
    hn::StoreU(hn::MulAdd(hn::Set(lane, a), hn::LoadU(lane, x + i), hn::LoadU(lane, y + i)), lane, y + i);
  }
}

void scale_f32(float* y, float a, std::int64_t n) {
  const F d;
  const auto va = hn::Set(d, a);
  std::int64_t i = vectors(n, [&](std::int64_t j) { hn::StoreU(hn::Mul(va, hn::LoadU(d, y + j)), d, y + j); });
  for (; i < n; ++i) y[i] *= a;
}

float dot_f32(const float* x, const float* y, std::int64_t n) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = hn::MulAdd(hn::LoadU(d, x + i), hn::LoadU(d, y + i), s0);
    s1 = hn::MulAdd(hn::LoadU(d, x + i + lanes), hn::LoadU(d, y + i + lanes), s1);
    s2 = hn::MulAdd(hn::LoadU(d, x + i + 2 * lanes), hn::LoadU(d, y + i + 2 * lanes), s2);
    s3 = hn::MulAdd(hn::LoadU(d, x + i + 3 * lanes), hn::LoadU(d, y + i + 3 * lanes), s3);
  }
  for (; i + lanes <= n; i += lanes) s0 = hn::MulAdd(hn::LoadU(d, x + i), hn::LoadU(d, y + i), s0);
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

/// Sums term(j) over short runs in f32 lanes and the runs in double, so that long arrays keep their accuracy.
template <class Vector, class Scalar>
HWY_INLINE double sum_in_runs(std::int64_t n, Vector&& vector, Scalar&& scalar) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t run = 16 * lanes;
  double total = 0;
  std::int64_t i = 0;
  while (i + lanes <= n) {
    auto partial = hn::Zero(d);
    const std::int64_t end = std::min(n - lanes + 1, i + run);
    for (; i < end; i += lanes) partial = hn::Add(partial, vector(i));
    total += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, partial)));
  }
  for (; i < n; ++i) total += static_cast<double>(scalar(i));
  return total;
}

double sum_f32(const float* x, std::int64_t n) {
  return sum_in_runs(
      n, [&](std::int64_t j) { return hn::LoadU(F(), x + j); }, [&](std::int64_t j) { return x[j]; });
}

double sum_squares_f32(const float* x, std::int64_t n) {
  return sum_in_runs(
      n,
      [&](std::int64_t j) {
        const auto v = hn::LoadU(F(), x + j);
        return hn::Mul(v, v);
      },
      [&](std::int64_t j) { return x[j] * x[j]; });
}

float max_f32(const float* x, std::int64_t n) {
  const F d;
  const float lowest = -std::numeric_limits<float>::infinity();
  auto largest = hn::Set(d, lowest);
  std::int64_t i = vectors(n, [&](std::int64_t j) { largest = hn::Max(largest, hn::LoadU(d, x + j)); });
  // Lane by lane: MaxOfLanes of Highway's emulated target knows nothing below the lowest finite number.
  HWY_ALIGN float lanes[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(largest, d, lanes);
  float result = *std::max_element(lanes, lanes + hn::Lanes(d));
  for (; i < n; ++i) result = std::max(result, x[i]);
  return result;
}

/// exp of a vector: 0 below the smallest normal result, infinity above the largest, NaN for NaN. Highway's Exp is
/// defined from the lowest float to 104 only, and takes NaN for a very negative number.
template <class V>
HWY_INLINE V exp_flushed(F d, V x) {
  const auto lowest = hn::Set(d, -87.33f), highest = hn::Set(d, 104.0f);
  const auto inside = hn::Exp(d, hn::Min(hn::Max(x, lowest), highest));
  return hn::IfThenElse(hn::IsNaN(x), x, hn::IfThenElseZero(hn::Ge(x, lowest), inside));
}

double exp_and_sum_f32(float* y, const float* x, float scale, float shift, std::int64_t n) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto vscale = hn::Set(d, scale), vshift = hn::Set(d, shift);
  const auto argument_at = [&](const float* from) HWY_ATTR { return hn::MulSub(hn::LoadU(d, from), vscale, vshift); };
  const auto large = [&](auto argument) HWY_ATTR { return hn::Gt(argument, hn::Set(d, simd::kShortExpLimit)); };
  const auto one = [&](const float* from, float* to) HWY_ATTR {
    const auto argument = argument_at(from);
    // A softmax subtracts its largest number: others are rare.
    const auto e =
        HWY_LIKELY(hn::AllFalse(d, large(argument))) ? simd::exp_of_difference(d, argument) : exp_flushed(d, argument);
    hn::StoreU(e, d, to);
    return e;
  };
  // Four at once, so that one question serves them and their chains overlap.
  const auto four = [&](const float* from, float* to) HWY_ATTR {
    const auto a0 = argument_at(from), a1 = argument_at(from + lanes), a2 = argument_at(from + 2 * lanes),
               a3 = argument_at(from + 3 * lanes);
    if (HWY_UNLIKELY(!hn::AllFalse(d, hn::Or(hn::Or(large(a0), large(a1)), hn::Or(large(a2), large(a3)))))) {
      const auto e0 = one(from, to), e1 = one(from + lanes, to + lanes);
      const auto e2 = one(from + 2 * lanes, to + 2 * lanes), e3 = one(from + 3 * lanes, to + 3 * lanes);
      return hn::Add(hn::Add(e0, e1), hn::Add(e2, e3));
    }
    const auto e0 = simd::exp_of_difference(d, a0), e1 = simd::exp_of_difference(d, a1);
    const auto e2 = simd::exp_of_difference(d, a2), e3 = simd::exp_of_difference(d, a3);
    hn::StoreU(e0, d, to);
    hn::StoreU(e1, d, to + lanes);
    hn::StoreU(e2, d, to + 2 * lanes);
    hn::StoreU(e3, d, to + 3 * lanes);
    return hn::Add(hn::Add(e0, e1), hn::Add(e2, e3));
  };
  double total = 0;
  std::int64_t i = 0;
  while (i + lanes <= n) {
    auto partial = hn::Zero(d);
    const std::int64_t end = std::min(n - lanes + 1, i + 16 * lanes);
    for (; i + 3 * lanes < end; i += 4 * lanes) partial = hn::Add(partial, four(x + i, y + i));
    for (; i < end; i += lanes) partial = hn::Add(partial, one(x + i, y + i));
    total += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, partial)));
  }
  if (i < n) {
    // The rest through one more vector, so that an element's value does not depend on its place.
    HWY_ALIGN float rest[HWY_MAX_BYTES / sizeof(float)];
    for (std::int64_t j = 0; j < lanes; ++j) rest[j] = i + j < n ? x[i + j] : 0.0f;
    one(rest, rest);
    for (std::int64_t j = 0; i + j < n; ++j) {
      y[i + j] = rest[j];
      total += static_cast<double>(rest[j]);
    }
  }
  return total;
}

void adam_f32(float* w, float* m, float* v, const float* g, std::int64_t n, const AdamStep& s) {
  const F d;
  const auto beta1 = hn::Set(d, static_cast<float>(s.beta1)), beta2 = hn::Set(d, static_cast<float>(s.beta2));
  const auto rest1 = hn::Set(d, static_cast<float>(1 - s.beta1)), rest2 = hn::Set(d, static_cast<float>(1 - s.beta2));
  const auto size = hn::Set(d, static_cast<float>(s.step_size)), eps = hn::Set(d, static_cast<float>(s.epsilon));
  const auto correction = hn::Set(d, static_cast<float>(s.inverse_correction));
  const auto keep = hn::Set(d, static_cast<float>(1 - s.decay));
  const auto update = [&](float* pw, float* pm, float* pv, const float* pg) {
    const auto grad = hn::LoadU(d, pg);
    const auto m1 = hn::Add(hn::Mul(beta1, hn::LoadU(d, pm)), hn::Mul(rest1, grad));
    const auto v1 = hn::Add(hn::Mul(beta2, hn::LoadU(d, pv)), hn::Mul(rest2, hn::Mul(grad, grad)));
    hn::StoreU(m1, d, pm);
    hn::StoreU(v1, d, pv);
    const auto delta = hn::Div(hn::Mul(size, m1), hn::Add(hn::Mul(hn::Sqrt(v1), correction), eps));
    hn::StoreU(hn::Sub(hn::Mul(keep, hn::LoadU(d, pw)), delta), d, pw);
  };
  constexpr std::size_t kLanes = HWY_MAX_BYTES / sizeof(float);
  HWY_ALIGN static constexpr float kZeros[kLanes] = {};
  std::int64_t i = vectors(n, [&](std::int64_t j) { update(w + j, m + j, v + j, g == nullptr ? kZeros : g + j); });
  if (i < n) {
    // The same arithmetic for the rest: a row's update must not depend on where it stands in the table.
    HWY_ALIGN float rw[kLanes] = {}, rm[kLanes] = {}, rv[kLanes] = {}, rg[kLanes] = {};
    const std::int64_t left = n - i;
    std::copy_n(w + i, left, rw);
    std::copy_n(m + i, left, rm);
    std::copy_n(v + i, left, rv);
    if (g != nullptr) std::copy_n(g + i, left, rg);
    update(rw, rm, rv, rg);
    std::copy_n(rw, left, w + i);
    std::copy_n(rm, left, m + i);
    std::copy_n(rv, left, v + i);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {

HWY_EXPORT(add_into_f32);
HWY_EXPORT(axpy_f32);
HWY_EXPORT(scale_f32);
HWY_EXPORT(dot_f32);
HWY_EXPORT(sum_f32);
HWY_EXPORT(sum_squares_f32);
HWY_EXPORT(max_f32);
HWY_EXPORT(exp_and_sum_f32);
HWY_EXPORT(adam_f32);

}  // namespace

void add_into(float* y, const float* x, std::int64_t n) { HWY_DYNAMIC_DISPATCH(add_into_f32)(y, x, n); }
void add_into(double* y, const double* x, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += x[i];
}

void axpy(float* y, float a, const float* x, std::int64_t n) { HWY_DYNAMIC_DISPATCH(axpy_f32)(y, a, x, n); }
void axpy(double* y, double a, const double* x, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

void scale(float* y, float a, std::int64_t n) { HWY_DYNAMIC_DISPATCH(scale_f32)(y, a, n); }
void scale(double* y, double a, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] *= a;
}

float dot(const float* x, const float* y, std::int64_t n) { return HWY_DYNAMIC_DISPATCH(dot_f32)(x, y, n); }
double dot(const double* x, const double* y, std::int64_t n) {
  double total = 0;
  for (std::int64_t i = 0; i < n; ++i) total += x[i] * y[i];
  return total;
}

double sum(const float* x, std::int64_t n) { return HWY_DYNAMIC_DISPATCH(sum_f32)(x, n); }
double sum(const double* x, std::int64_t n) {
  double total = 0;
  for (std::int64_t i = 0; i < n; ++i) total += x[i];
  return total;
}

double sum_squares(const float* x, std::int64_t n) { return HWY_DYNAMIC_DISPATCH(sum_squares_f32)(x, n); }
double sum_squares(const double* x, std::int64_t n) { return dot(x, x, n); }

float max_value(const float* x, std::int64_t n) { return HWY_DYNAMIC_DISPATCH(max_f32)(x, n); }
double max_value(const double* x, std::int64_t n) {
  double result = -std::numeric_limits<double>::infinity();
  for (std::int64_t i = 0; i < n; ++i) result = std::max(result, x[i]);
  return result;
}

double exp_and_sum(float* y, const float* x, float scale, float shift, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(exp_and_sum_f32)(y, x, scale, shift, n);
}
double exp_and_sum(double* y, const double* x, double scale, double shift, std::int64_t n) {
  double total = 0;
  for (std::int64_t i = 0; i < n; ++i) total += y[i] = std::exp(scale * x[i] - shift);
  return total;
}

void adam_update(float* w, float* m, float* v, const float* g, std::int64_t n, const AdamStep& step) {
  HWY_DYNAMIC_DISPATCH(adam_f32)(w, m, v, g, n, step);
}
void adam_update(double* w, double* m, double* v, const double* g, std::int64_t n, const AdamStep& s) {
  for (std::int64_t i = 0; i < n; ++i) {
    const double grad = g == nullptr ? 0 : g[i];
    m[i] = s.beta1 * m[i] + (1 - s.beta1) * grad;
    v[i] = s.beta2 * v[i] + (1 - s.beta2) * grad * grad;
    w[i] = (1 - s.decay) * w[i] - s.step_size * m[i] / (std::sqrt(v[i]) * s.inverse_correction + s.epsilon);
  }
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
