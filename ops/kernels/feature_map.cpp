// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/feature_map.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/ops/kernels/feature_map.h"
#include "tally/ops/kernels/simd_math-inl.h"
#include "tally/ops/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

void elu_features_f32(const float* x, std::int64_t width, float log_weight, float* features) {
  const hn::ScalableTag<float> d;
  const auto shift = hn::Set(d, log_weight), one = hn::Set(d, 1.0f);
  for_each_vector(d, width, [&](std::int64_t i, std::int64_t count) HWY_ATTR {
    const auto v = load_lanes(d, x + i, count);
    const auto below = simd::exp(d, hn::Sub(hn::Min(v, hn::Zero(d)), shift));
    const auto y = hn::IfThenElse(hn::Gt(v, hn::Zero(d)), hn::Add(v, one), below);
    store_lanes(hn::IfThenElse(hn::IsNaN(v), v, y), d, features + i, count);
  });
}

void elu_features_backward_f32(const float* x, std::int64_t width, const float* features, const float* gradient,
                               float* gx) {
  const hn::ScalableTag<float> d;
  for_each_vector(d, width, [&](std::int64_t i, std::int64_t count) HWY_ATTR {
    const auto g = load_lanes(d, gradient + i, count);
    const auto above = hn::Gt(load_lanes(d, x + i, count), hn::Zero(d));
    store_lanes(hn::IfThenElse(above, g, hn::Mul(g, load_lanes(d, features + i, count))), d, gx + i, count);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {
HWY_EXPORT(elu_features_f32);
HWY_EXPORT(elu_features_backward_f32);
}  // namespace

void elu_features(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t width, float* features,
                  float* log_weight) {
  for (std::int64_t r = 0; r < rows; ++r) {
    log_weight[r] = std::min(0.0f, max_value(x + r * stride, width));
    HWY_DYNAMIC_DISPATCH(elu_features_f32)(x + r * stride, width, log_weight[r], features + r * width);
  }
}
void elu_features(const double* x, std::int64_t stride, std::int64_t rows, std::int64_t width, double* features,
                  double* log_weight) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const double* row = x + r * stride;
    log_weight[r] = std::min(0.0, max_value(row, width));
    for (std::int64_t i = 0; i < width; ++i)
      features[r * width + i] = row[i] > 0 ? row[i] + 1 : std::exp(row[i] - log_weight[r]);
  }
}

void elu_features_backward(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t width,
                           const float* features, const float* gradient, float* gx, std::int64_t gx_stride) {
  for (std::int64_t r = 0; r < rows; ++r) {
    HWY_DYNAMIC_DISPATCH(elu_features_backward_f32)
    (x + r * stride, width, features + r * width, gradient + r * width, gx + r * gx_stride);
  }
}
void elu_features_backward(const double* x, std::int64_t stride, std::int64_t rows, std::int64_t width,
                           const double* features, const double* gradient, double* gx, std::int64_t gx_stride) {
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t i = 0; i < width; ++i) {
      const double slope = x[r * stride + i] > 0 ? 1 : features[r * width + i];
      gx[r * gx_stride + i] = gradient[r * width + i] * slope;
    }
  }
}

template <class T>
void PositiveRandomMap<T>::forward(const T* x, std::int64_t stride, std::int64_t rows, T* out, T* log_weight) const {
  blas::gemm(blas::Transpose::no, blas::Transpose::yes, rows, features, width, root, x, stride, directions, width, T{0},
             out, features);
  for (std::int64_t r = 0; r < rows; ++r) {
    T* row = out + r * features;
    const T largest = max_value(row, features);
    exp_and_sum(row, row, T{1}, largest, features);
    const double square =
        squared ? static_cast<double>(root) * static_cast<double>(root) * sum_squares(x + r * stride, width) / 2 : 0;
    log_weight[r] = static_cast<T>(static_cast<double>(largest) - square);
  }
}

template <class T>
void PositiveRandomMap<T>::backward(const T* x, std::int64_t stride, std::int64_t rows, const T* out, T* gradient,
                                    T* gx, std::int64_t gx_stride) const {
  for (std::int64_t i = 0; i < rows * features; ++i) gradient[i] *= out[i];
  blas::gemm(blas::Transpose::no, blas::Transpose::no, rows, width, features, root, gradient, features, directions,
             width, T{0}, gx, gx_stride);
  if (!squared) return;
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto total = static_cast<T>(sum(gradient + r * features, features));
    axpy(gx + r * gx_stride, -root * root * total, x + r * stride, width);
  }
}

template struct PositiveRandomMap<float>;
template struct PositiveRandomMap<double>;

}  // namespace tally::kernels
#endif  // HWY_ONCE
