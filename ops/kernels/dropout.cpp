// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/dropout.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "tally/ops/kernels/dropout-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

template <class T>
void apply(const DropoutMask& mask, std::uint64_t first_row, std::int64_t rows, std::int64_t columns, const T* x,
           T* y) {
  const hn::ScalableTag<T> d;
  MaskRows bits(&mask, first_row, rows, columns);
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t first = 0; first < columns; first += MaskRows::kRun) {
      const std::int64_t n = std::min(MaskRows::kRun, columns - first);
      const MaskBits* run = bits.at(row, first, n);
      const T* from = x + row * columns + first;
      T* to = y + row * columns + first;
      for_each_vector(d, n, [&](std::int64_t i, std::int64_t count) {
        store_lanes(drop(d, load_lanes(d, from + i, count), run + i, mask), d, to + i, count);
      });
    }
  }
}

void apply_f32(const DropoutMask& mask, std::uint64_t first_row, std::int64_t rows, std::int64_t columns,
               const float* x, float* y) {
  apply(mask, first_row, rows, columns, x, y);
}

#if HWY_ONCE
// The same for checking in f64, for the baseline target only.
void apply_f64(const DropoutMask& mask, std::uint64_t first_row, std::int64_t rows, std::int64_t columns,
               const double* x, double* y) {
  apply(mask, first_row, rows, columns, x, y);
}
#endif

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {
HWY_EXPORT(apply_f32);
}  // namespace

DropoutMask dropout_mask(double rate, RngKey key) {
  return {key, static_cast<MaskBits>(std::min(std::round(rate * 0x1p16), 0x1p16 - 1)), 1 / (1 - rate)};
}

void apply_dropout(const DropoutMask& mask, std::uint64_t first_row, std::int64_t rows, std::int64_t columns,
                   const float* x, float* y) {
  HWY_DYNAMIC_DISPATCH(apply_f32)(mask, first_row, rows, columns, x, y);
}
void apply_dropout(const DropoutMask& mask, std::uint64_t first_row, std::int64_t rows, std::int64_t columns,
                   const double* x, double* y) {
  HWY_STATIC_DISPATCH(apply_f64)(mask, first_row, rows, columns, x, y);
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
