// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/softmax_rows.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tally/core/kernels.h"
#include "tally/ops/kernels/softmax_rows.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;
using One = hn::CappedTag<float, 1>;

/// Calls body(tag, i) for whole vectors, then for single lanes, which compute the same.
template <class Body>
HWY_INLINE void for_each_place(std::int64_t n, Body&& body) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(d, i);
  for (; i < n; ++i) body(One(), i);
}

/// y = x - first - second
void subtract_two_f32(const float* x, float first, float second, float* y, std::int64_t n) {
  for_each_place(n, [&](auto d, std::int64_t i) {
    hn::StoreU(hn::Sub(hn::Sub(hn::LoadU(d, x + i), hn::Set(d, first)), hn::Set(d, second)), d, y + i);
  });
}

/// Sum of x y: short runs in f32 lanes, the runs in double.
double dot_in_runs_f32(const float* x, const float* y, std::int64_t n) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  double total = 0;
  std::int64_t i = 0;
  while (i + lanes <= n) {
    auto partial = hn::Zero(d);
    const std::int64_t end = std::min(n - lanes + 1, i + 16 * lanes);
    for (; i < end; i += lanes) partial = hn::MulAdd(hn::LoadU(d, x + i), hn::LoadU(d, y + i), partial);
    total += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, partial)));
  }
  for (; i < n; ++i) total += static_cast<double>(x[i]) * static_cast<double>(y[i]);
  return total;
}

/// gx = y (gy - mean)
void centre_f32(const float* y, const float* gy, float mean, float* gx, std::int64_t n) {
  for_each_place(n, [&](auto d, std::int64_t i) {
    hn::StoreU(hn::Mul(hn::LoadU(d, y + i), hn::Sub(hn::LoadU(d, gy + i), hn::Set(d, mean))), d, gx + i);
  });
}

/// gx = gy - factor gx
void reverse_axpy_f32(const float* gy, float factor, float* gx, std::int64_t n) {
  for_each_place(n, [&](auto d, std::int64_t i) {
    hn::StoreU(hn::NegMulAdd(hn::Set(d, factor), hn::LoadU(d, gx + i), hn::LoadU(d, gy + i)), d, gx + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {

HWY_EXPORT(subtract_two_f32);
HWY_EXPORT(dot_in_runs_f32);
HWY_EXPORT(centre_f32);
HWY_EXPORT(reverse_axpy_f32);

void subtract_two(const float* x, float first, float second, float* y, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(subtract_two_f32)(x, first, second, y, n);
}
void subtract_two(const double* x, double first, double second, double* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = x[i] - first - second;
}

double dot_in_runs(const float* x, const float* y, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(dot_in_runs_f32)(x, y, n);
}
double dot_in_runs(const double* x, const double* y, std::int64_t n) { return dot(x, y, n); }

void centre(const float* y, const float* gy, float mean, float* gx, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(centre_f32)(y, gy, mean, gx, n);
}
void centre(const double* y, const double* gy, double mean, double* gx, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) gx[i] = y[i] * (gy[i] - mean);
}

void reverse_axpy(const float* gy, float factor, float* gx, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(reverse_axpy_f32)(gy, factor, gx, n);
}
void reverse_axpy(const double* gy, double factor, double* gx, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) gx[i] = gy[i] - factor * gx[i];
}

/// A row without any number above minus infinity: `value` there, NaN where x is NaN.
template <class T>
void fill_empty_row(const T* x, T value, T* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = std::isnan(x[i]) ? x[i] : value;
}

template <class T>
void softmax_of_row(const T* x, T* y, std::int64_t n) {
  const T largest = max_value(x, n);
  if (largest == -std::numeric_limits<T>::infinity()) return fill_empty_row(x, T{0}, y, n);
  const double sum = exp_and_sum(y, x, T{1}, largest, n);
  scale(y, static_cast<T>(1 / sum), n);
}

template <class T>
void log_softmax_of_row(const T* x, T* y, std::int64_t n) {
  const T largest = max_value(x, n);
  if (largest == -std::numeric_limits<T>::infinity()) return fill_empty_row(x, largest, y, n);
  // y is only a place for the exponentials here. Subtracting twice keeps what the sum of both numbers would round away.
  const double sum = exp_and_sum(y, x, T{1}, largest, n);
  subtract_two(x, largest, static_cast<T>(std::log(sum)), y, n);
}

template <class T>
void softmax_backward_of_row(const T* y, const T* gy, T* gx, std::int64_t n) {
  centre(y, gy, static_cast<T>(dot_in_runs(y, gy, n)), gx, n);
}

template <class T>
void log_softmax_backward_of_row(const T* y, const T* gy, T* gx, std::int64_t n) {
  exp_and_sum(gx, y, T{1}, T{0}, n);
  reverse_axpy(gy, static_cast<T>(sum(gy, n)), gx, n);
}

}  // namespace

void softmax_row(const float* x, float* y, std::int64_t n) { softmax_of_row(x, y, n); }
void softmax_row(const double* x, double* y, std::int64_t n) { softmax_of_row(x, y, n); }
void log_softmax_row(const float* x, float* y, std::int64_t n) { log_softmax_of_row(x, y, n); }
void log_softmax_row(const double* x, double* y, std::int64_t n) { log_softmax_of_row(x, y, n); }
void softmax_backward(const float* y, const float* gy, float* gx, std::int64_t n) {
  softmax_backward_of_row(y, gy, gx, n);
}
void softmax_backward(const double* y, const double* gy, double* gx, std::int64_t n) {
  softmax_backward_of_row(y, gy, gx, n);
}
void log_softmax_backward(const float* y, const float* gy, float* gx, std::int64_t n) {
  log_softmax_backward_of_row(y, gy, gx, n);
}
void log_softmax_backward(const double* y, const double* gy, double* gx, std::int64_t n) {
  log_softmax_backward_of_row(y, gy, gx, n);
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
