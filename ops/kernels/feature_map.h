#pragma once

#include <cstdint>

// Feature maps of linear attention: phi(x) = exp(log_weight) * features, the features between 0 and about 1 unless x is
// large. f32 is SIMD, dispatched at run time; f64 exists for checking. All run on the calling thread.

namespace tally::kernels {

/// features[r] = elu(x) + 1 over exp(log_weight[r]), where log_weight = min(0, largest x of the row). Rows of x lie
/// `stride` elements apart.
void elu_features(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t width, float* features,
                  float* log_weight);
void elu_features(const double* x, std::int64_t stride, std::int64_t rows, std::int64_t width, double* features,
                  double* log_weight);

/// gx = gradient * d features / d x, the log weight held fixed; rows of gx lie gx_stride apart.
void elu_features_backward(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t width,
                           const float* features, const float* gradient, float* gx, std::int64_t gx_stride);
void elu_features_backward(const double* x, std::int64_t stride, std::int64_t rows, std::int64_t width,
                           const double* features, const double* gradient, double* gx, std::int64_t gx_stride);

/// A map by random directions: features exp(<w_f, root x> - |root x|^2 / 2), the square only where `squared`.
template <class T>
struct PositiveRandomMap {
  const T* directions;  ///< [features, width]
  std::int64_t features, width;
  T root;
  bool squared;

  void forward(const T* x, std::int64_t stride, std::int64_t rows, T* out, T* log_weight) const;
  /// `gradient` [rows, features] is overwritten.
  void backward(const T* x, std::int64_t stride, std::int64_t rows, const T* out, T* gradient, T* gx,
                std::int64_t gx_stride) const;
};

}  // namespace tally::kernels
