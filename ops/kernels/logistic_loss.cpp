// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/logistic_loss.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <cmath>

#include "tally/ops/kernels/logistic_loss.h"
#include "tally/ops/kernels/simd_math-inl.h"
#include "tally/ops/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

void logistic_loss_f32(float* losses, float* slopes, const float* x, const float* targets, std::int64_t n) {
  const hn::ScalableTag<float> d;
  const auto zero = hn::Zero(d), one = hn::Set(d, 1.0f);
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t count) {
    const auto v = load_lanes(d, x + i, count);
    const auto target = targets == nullptr ? zero : load_lanes(d, targets + i, count);
    const auto negative = hn::Lt(v, zero);
    // max(x, 0) - target x, one side at a time: exactly 0 where the target says so.
    const auto linear = hn::Mul(v, hn::IfThenElse(negative, hn::Neg(target), hn::Sub(one, target)));
    const auto e = simd::exp(d, hn::Neg(hn::Abs(v)));
    store_lanes(hn::Add(linear, hn::Log1p(d, e)), d, losses + i, count);
    if (slopes == nullptr) return;
    // sigmoid(x) - target as e / (1 + e) on the side where it is small.
    const auto small = hn::Div(e, hn::Add(one, e));
    const auto slope = hn::IfThenElse(negative, hn::Sub(small, target), hn::Sub(hn::Sub(one, target), small));
    store_lanes(slope, d, slopes + i, count);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {

HWY_EXPORT(logistic_loss_f32);

}  // namespace

void logistic_loss(float* losses, float* slopes, const float* x, const float* targets, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(logistic_loss_f32)(losses, slopes, x, targets, n);
}
void logistic_loss(double* losses, double* slopes, const double* x, const double* targets, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const double v = x[i], target = targets == nullptr ? 0 : targets[i], e = std::exp(-std::fabs(v));
    losses[i] = v * (v < 0 ? -target : 1 - target) + std::log1p(e);
    if (slopes != nullptr) slopes[i] = v < 0 ? e / (1 + e) - target : (1 - target) - e / (1 + e);
  }
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
