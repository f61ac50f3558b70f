#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

#include "tally/ops/activation.h"

// Bias and activation over tiles of a row-major matrix, fused with what backward keeps of them. f32 is SIMD, f64 plain.
// The vector functions stand in activation-inl.h. All run on the calling thread.

namespace tally::kernels {

/// What the slope of an activation is computed from.
enum class Kept : std::uint8_t { nothing, signs, before, after };
constexpr Kept kept_for(ops::Activation activation) {
  switch (activation) {
    case ops::Activation::none:
      return Kept::nothing;
    case ops::Activation::relu:
      return Kept::signs;
    case ops::Activation::gelu:
    case ops::Activation::silu:
      return Kept::before;
    case ops::Activation::tanh:
    case ops::Activation::sigmoid:
      return Kept::after;
  }
  return Kept::nothing;
}

/// z [rows, columns] += bias (when not null); y = activation(z). Both have rows `stride` apart and may be the same,
/// then the sum is not stored. With `signs` bit j % 8 of signs[row * sign_stride + j / 8] says whether y > 0; other
/// bits of the bytes touched are 0.
struct ActivationTile {
  std::int64_t rows = 0, columns = 0, stride = 0;
  std::uint8_t* signs = nullptr;
  std::int64_t sign_stride = 0;
};
void activate(ops::Activation activation, float* z, const float* bias, float* y, const ActivationTile& tile);
void activate(ops::Activation activation, double* z, const double* bias, double* y, const ActivationTile& tile);

/// g[i] *= the slope, from the values before (gelu, silu) or after (tanh, sigmoid) the activation.
void multiply_slope(ops::Activation activation, float* g, const float* kept, std::int64_t n);
void multiply_slope(ops::Activation activation, double* g, const double* kept, std::int64_t n);

/// g[i] = 0 where bit i % 8 of signs[i / 8] is not set.
void keep_signed(float* g, const std::uint8_t* signs, std::int64_t n);
void keep_signed(double* g, const std::uint8_t* signs, std::int64_t n);

// Plain double forms, for f64 and for the rest of the elementwise family.

inline double relu(double x) { return x < 0 ? 0 : x; }
inline double sigmoid(double x) {
  const double e = std::exp(-std::fabs(x));
  return x < 0 ? e / (1 + e) : 1 / (1 + e);
}
inline double normal_probability(double x) { return 0.5 * std::erfc(-x * (1 / std::numbers::sqrt2)); }
inline double gelu(double x) { return x * normal_probability(x); }
inline double gelu_slope(double x) {
  return normal_probability(x) + x * std::exp(-0.5 * x * x) * (0.5 * std::numbers::inv_sqrtpi * std::numbers::sqrt2);
}
inline double silu(double x) { return x * sigmoid(x); }
inline double silu_slope(double x) {
  const double s = sigmoid(x);
  return s + x * s * (1 - s);
}

}  // namespace tally::kernels
