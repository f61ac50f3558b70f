// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/histogram_rows.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <vector>

#include "tally/core/kernels.h"
#include "tally/ops/kernels/histogram_tile.h"
#include "tally/ops/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;
using V = hn::Vec<F>;

static_assert(HWY_MAX_BYTES / sizeof(float) <= kCodewordPadding, "rows are whole vectors");

template <bool kDecayed>
HWY_INLINE void tally_back_of(const float* from, std::int64_t rows, std::int64_t stride, const float* after,
                              const float* powers, float* out) {
  const F d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V decay = hn::Set(d, powers[1]);
  std::vector<float> sums(static_cast<std::size_t>(stride));
  // The hardware does not expect rows that come against their order.
  constexpr std::int64_t kAhead = 8, kLine = 64 / sizeof(float);
  for (std::int64_t r = rows - 1; r >= 0; --r) {
    for (std::int64_t i = 0; r >= kAhead && i < stride; i += kLine) hwy::Prefetch(from + (r - kAhead) * stride + i);
    const V power = hn::Set(d, powers[rows - r]);
    for (std::int64_t i = 0; i < stride; i += lanes) {
      V sum = hn::LoadU(d, sums.data() + i);
      if (kDecayed) sum = flushed(d, hn::Mul(decay, sum));
      sum = hn::Add(sum, hn::LoadU(d, from + r * stride + i));
      hn::StoreU(sum, d, sums.data() + i);
      if (after != nullptr) sum = hn::MulAdd(hn::LoadU(d, after + i), power, sum);
      hn::StoreU(sum, d, out + r * stride + i);
    }
  }
}

void tally_back_f32(const float* from, std::int64_t rows, std::int64_t stride, const float* after, const float* powers,
                    float* out) {
  if (powers[1] == 1) {
    tally_back_of<false>(from, rows, stride, after, powers, out);
  } else {
    tally_back_of<true>(from, rows, stride, after, powers, out);
  }
}

void sum_weighted_rows_f32(const float* from, std::int64_t rows, std::int64_t stride, const float* weights,
                           float* sums) {
  const F d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  // Lines of a row that are side by side, with their sums in registers.
  constexpr int kTogether = 8;
  std::int64_t i = 0;
  for (; i + kTogether * lanes <= stride; i += kTogether * lanes) {
    V sum[kTogether];
    for (int k = 0; k < kTogether; ++k) sum[k] = hn::Zero(d);
    for (std::int64_t r = 0; r < rows; ++r) {
      const V weight = hn::Set(d, weights[r]);
      const float* row = from + r * stride + i;
      for (int k = 0; k < kTogether; ++k) sum[k] = hn::MulAdd(weight, hn::LoadU(d, row + k * lanes), sum[k]);
    }
    for (int k = 0; k < kTogether; ++k) hn::StoreU(sum[k], d, sums + i + k * lanes);
  }
  for (; i < stride; i += lanes) {
    V sum = hn::Zero(d);
    for (std::int64_t r = 0; r < rows; ++r) {
      sum = hn::MulAdd(hn::Set(d, weights[r]), hn::LoadU(d, from + r * stride + i), sum);
    }
    hn::StoreU(sum, d, sums + i);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {

HWY_EXPORT(tally_back_f32);
HWY_EXPORT(sum_weighted_rows_f32);

}  // namespace

void tally_back(const float* from, std::int64_t rows, std::int64_t stride, const float* after, const float* powers,
                float* out) {
  HWY_DYNAMIC_DISPATCH(tally_back_f32)(from, rows, stride, after, powers, out);
}
void tally_back(const double* from, std::int64_t rows, std::int64_t stride, const double* after, const double* powers,
                double* out) {
  std::vector<double> sums(static_cast<std::size_t>(stride));
  for (std::int64_t r = rows - 1; r >= 0; --r) {
    if (powers[1] != 1) decay_counts(sums.data(), powers[1], stride);
    add_into(sums.data(), from + r * stride, stride);
    std::copy(sums.begin(), sums.end(), out + r * stride);
    if (after != nullptr) axpy(out + r * stride, powers[rows - r], after, stride);
  }
}

void sum_weighted_rows(const float* from, std::int64_t rows, std::int64_t stride, const float* weights, float* sums) {
  HWY_DYNAMIC_DISPATCH(sum_weighted_rows_f32)(from, rows, stride, weights, sums);
}
void sum_weighted_rows(const double* from, std::int64_t rows, std::int64_t stride, const double* weights,
                       double* sums) {
  std::fill_n(sums, stride, 0.0);
  for (std::int64_t r = 0; r < rows; ++r) axpy(sums, weights[r], from + r * stride, stride);
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
