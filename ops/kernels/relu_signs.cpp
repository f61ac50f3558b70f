// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/relu_signs.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include "tally/ops/kernels/relu_signs.h"
#include "tally/ops/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

// At most eight lanes: a step then writes or reads one byte of signs, or a part of one.
using Eight = hn::CappedTag<float, 8>;

void relu_with_signs_f32(float* y, std::uint8_t* signs, std::int64_t n) {
  const Eight d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t i = 0; i < n; i += lanes) {
    const std::int64_t count = std::min(lanes, n - i);
    const auto v = load_lanes(d, y + i, count);  // zeros beyond n, which are not positive
    std::uint8_t bits[8] = {};
    hn::StoreMaskBits(d, hn::Gt(v, hn::Zero(d)), bits);
    const auto before = static_cast<unsigned>(i % 8 == 0 ? 0 : signs[i / 8]);
    signs[i / 8] = static_cast<std::uint8_t>(before | static_cast<unsigned>(bits[0]) << (i % 8));
    store_lanes(hn::IfThenZeroElse(hn::Le(v, hn::Zero(d)), v), d, y + i, count);
  }
}

void keep_signed_f32(float* g, const std::uint8_t* signs, std::int64_t n) {
  const Eight d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t i = 0; i < n; i += lanes) {
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
HWY_EXPORT(relu_with_signs_f32);
HWY_EXPORT(keep_signed_f32);
}  // namespace

void relu_with_signs(float* y, std::uint8_t* signs, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(relu_with_signs_f32)(y, signs, n);
}
void relu_with_signs(double* y, std::uint8_t* signs, std::int64_t n) {
  std::fill_n(signs, (n + 7) / 8, std::uint8_t{0});
  for (std::int64_t i = 0; i < n; ++i) {
    if (y[i] > 0) signs[i / 8] = static_cast<std::uint8_t>(signs[i / 8] | 1u << (i % 8));
    if (y[i] <= 0) y[i] = 0;
  }
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
