// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/activation.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include "tally/ops/kernels/activation-inl.h"
#include "tally/ops/kernels/activation.h"
#include "tally/ops/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

using F = hn::ScalableTag<float>;

/// Rows of `function`(z + bias).
template <class Function>
HWY_INLINE void activate_rows(float* z, const float* bias, float* y, const ActivationTile& tile, Function&& function) {
  const F d;
  const bool store_sum = bias != nullptr && z != y;
  for (std::int64_t row = 0; row < tile.rows; ++row) {
    float* zr = z + row * tile.stride;
    float* yr = y + row * tile.stride;
    for_each_vector(d, tile.columns, [&](std::int64_t j, std::int64_t count) {
      auto v = load_lanes(d, zr + j, count);
      if (bias != nullptr) v = hn::Add(v, load_lanes(d, bias + j, count));
      if (store_sum) store_lanes(v, d, zr + j, count);
      store_lanes(function(v), d, yr + j, count);
    });
  }
}

/// Eight elements a step, so that each step writes one byte of signs on every target.
void relu_with_signs(float* z, const float* bias, float* y, const ActivationTile& tile) {
  const hn::CappedTag<float, 8> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t row = 0; row < tile.rows; ++row) {
    float* zr = z + row * tile.stride;
    float* yr = y + row * tile.stride;
    std::uint8_t* signs = tile.signs + row * tile.sign_stride;
    for (std::int64_t j = 0; j < tile.columns; j += 8) {
      unsigned byte = 0;
      for (std::int64_t part = 0; part < 8 && j + part < tile.columns; part += lanes) {
        const std::int64_t at = j + part, count = std::min(lanes, tile.columns - at);
        auto v = load_lanes(d, zr + at, count);
        if (bias != nullptr) v = hn::Add(v, load_lanes(d, bias + at, count));
        std::uint8_t bits[8] = {};
        hn::StoreMaskBits(d, hn::Gt(v, hn::Zero(d)), bits);
        byte |= static_cast<unsigned>(bits[0]) << part;
        store_lanes(relu(d, v), d, yr + at, count);
      }
      const std::int64_t left = tile.columns - j;
      signs[j / 8] = static_cast<std::uint8_t>(left < 8 ? byte & ((1u << left) - 1) : byte);
    }
  }
}

void activate_f32(ops::Activation activation, float* z, const float* bias, float* y, const ActivationTile& tile) {
  const F d;
  using V = hn::Vec<F>;
  switch (activation) {
    case ops::Activation::none:
      return activate_rows(z, bias, y, tile, [](V v) { return v; });
    case ops::Activation::relu:
      if (tile.signs != nullptr) return relu_with_signs(z, bias, y, tile);
      return activate_rows(z, bias, y, tile, [&](V v) { return relu(d, v); });
    case ops::Activation::gelu:
      return activate_rows(z, bias, y, tile, [&](V v) { return gelu(d, v); });
    case ops::Activation::silu:
      return activate_rows(z, bias, y, tile, [&](V v) { return silu(d, v); });
    case ops::Activation::tanh:
      return activate_rows(z, bias, y, tile, [&](V v) { return tanh(d, v); });
    case ops::Activation::sigmoid:
      return activate_rows(z, bias, y, tile, [&](V v) { return sigmoid(d, v); });
  }
}

template <class Slope>
HWY_INLINE void multiply_each(float* g, const float* kept, std::int64_t n, Slope&& slope) {
  const F d;
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t count) {
    store_lanes(hn::Mul(load_lanes(d, g + i, count), slope(load_lanes(d, kept + i, count))), d, g + i, count);
  });
}

void multiply_slope_f32(ops::Activation activation, float* g, const float* kept, std::int64_t n) {
  const F d;
  using V = hn::Vec<F>;
  switch (activation) {
    case ops::Activation::none:
    case ops::Activation::relu:
      return;
    case ops::Activation::gelu:
      return multiply_each(g, kept, n, [&](V v) { return gelu_slope(d, v); });
    case ops::Activation::silu:
      return multiply_each(g, kept, n, [&](V v) { return silu_slope(d, v); });
    case ops::Activation::tanh:
      return multiply_each(g, kept, n, [&](V v) { return tanh_slope(d, v); });
    case ops::Activation::sigmoid:
      return multiply_each(g, kept, n, [&](V v) { return sigmoid_slope(d, v); });
  }
}

void keep_signed_f32(float* g, const std::uint8_t* signs, std::int64_t n) {
  const hn::CappedTag<float, 8> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t i = 0; i < n; i += lanes) {
    // LoadMaskBits reads whole bytes; lanes below eight take their part of one.
    const std::uint8_t bits[8] = {static_cast<std::uint8_t>(signs[i / 8] >> (i % 8))};
    const std::int64_t count = std::min(lanes, n - i);
    store_lanes(hn::IfThenElseZero(hn::LoadMaskBits(d, bits), load_lanes(d, g + i, count)), d, g + i, count);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {

HWY_EXPORT(activate_f32);
HWY_EXPORT(multiply_slope_f32);
HWY_EXPORT(keep_signed_f32);

double value_of(ops::Activation activation, double x) {
  switch (activation) {
    case ops::Activation::none:
      break;
    case ops::Activation::relu:
      return relu(x);
    case ops::Activation::gelu:
      return gelu(x);
    case ops::Activation::silu:
      return silu(x);
    case ops::Activation::tanh:
      return std::tanh(x);
    case ops::Activation::sigmoid:
      return sigmoid(x);
  }
  return x;
}

double slope_of(ops::Activation activation, double kept) {
  switch (activation) {
    case ops::Activation::none:
    case ops::Activation::relu:
      break;
    case ops::Activation::gelu:
      return gelu_slope(kept);
    case ops::Activation::silu:
      return silu_slope(kept);
    case ops::Activation::tanh:
      return 1 - kept * kept;
    case ops::Activation::sigmoid:
      return kept * (1 - kept);
  }
  return 1;
}

}  // namespace

void activate(ops::Activation activation, float* z, const float* bias, float* y, const ActivationTile& tile) {
  HWY_DYNAMIC_DISPATCH(activate_f32)(activation, z, bias, y, tile);
}
void activate(ops::Activation activation, double* z, const double* bias, double* y, const ActivationTile& tile) {
  for (std::int64_t row = 0; row < tile.rows; ++row) {
    std::uint8_t* signs = tile.signs == nullptr ? nullptr : tile.signs + row * tile.sign_stride;
    for (std::int64_t j = 0; j < tile.columns; ++j) {
      const std::int64_t at = row * tile.stride + j;
      if (bias != nullptr) z[at] += bias[j];
      y[at] = value_of(activation, z[at]);
      if (signs == nullptr) continue;
      if (j % 8 == 0) signs[j / 8] = 0;
      if (y[at] > 0) signs[j / 8] = static_cast<std::uint8_t>(signs[j / 8] | 1u << (j % 8));
    }
  }
}

void multiply_slope(ops::Activation activation, float* g, const float* kept, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(multiply_slope_f32)(activation, g, kept, n);
}
void multiply_slope(ops::Activation activation, double* g, const double* kept, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) g[i] *= slope_of(activation, kept[i]);
}

void keep_signed(float* g, const std::uint8_t* signs, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(keep_signed_f32)(g, signs, n);
}
void keep_signed(double* g, const std::uint8_t* signs, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    if ((signs[i / 8] >> (i % 8) & 1) == 0) g[i] = 0;
  }
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
