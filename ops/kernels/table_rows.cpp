// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/table_rows.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "tally/ops/kernels/table_rows.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;

constexpr std::int64_t kRun = 64;

void dot_rows_f32(float* out, const float* x, const float* table, const std::int64_t* rows, std::int64_t count,
                  std::int64_t width) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t whole = width / lanes * lanes;
  const auto finish = [&](hn::Vec<F> sums, const float* row) {
    float sum = hn::GetLane(hn::SumOfLanes(d, sums));
    for (std::int64_t i = whole; i < width; ++i) sum = std::fma(x[i], row[i], sum);
    return sum;
  };
  std::int64_t j = 0;
  for (; j + 4 <= count; j += 4) {
    // Four rows at once: four independent chains of additions, and x is loaded once for them.
    const float *r0 = table + rows[j] * width, *r1 = table + rows[j + 1] * width;
    const float *r2 = table + rows[j + 2] * width, *r3 = table + rows[j + 3] * width;
    auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
    for (std::int64_t i = 0; i < whole; i += lanes) {
      const auto v = hn::LoadU(d, x + i);
      s0 = hn::MulAdd(v, hn::LoadU(d, r0 + i), s0);
      s1 = hn::MulAdd(v, hn::LoadU(d, r1 + i), s1);
      s2 = hn::MulAdd(v, hn::LoadU(d, r2 + i), s2);
      s3 = hn::MulAdd(v, hn::LoadU(d, r3 + i), s3);
    }
    out[j] = finish(s0, r0);
    out[j + 1] = finish(s1, r1);
    out[j + 2] = finish(s2, r2);
    out[j + 3] = finish(s3, r3);
  }
  for (; j < count; ++j) {
    const float* row = table + rows[j] * width;
    auto sums = hn::Zero(d);
    for (std::int64_t i = 0; i < whole; i += lanes) sums = hn::MulAdd(hn::LoadU(d, x + i), hn::LoadU(d, row + i), sums);
    out[j] = finish(sums, row);
  }
}

void add_weighted_rows_f32(float* y, const float* factors, const float* table, const std::int64_t* rows,
                           std::int64_t count, std::int64_t width) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t begin = 0; begin < count; begin += kRun) {
    const std::int64_t end = std::min(begin + kRun, count);
    std::int64_t i = 0;
    for (; i + 4 * lanes <= width; i += 4 * lanes) {
      auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
      for (std::int64_t j = begin; j < end; ++j) {
        const auto factor = hn::Set(d, factors[j]);
        const float* row = table + rows[j] * width + i;
        s0 = hn::MulAdd(factor, hn::LoadU(d, row), s0);
        s1 = hn::MulAdd(factor, hn::LoadU(d, row + lanes), s1);
        s2 = hn::MulAdd(factor, hn::LoadU(d, row + 2 * lanes), s2);
        s3 = hn::MulAdd(factor, hn::LoadU(d, row + 3 * lanes), s3);
      }
      hn::StoreU(hn::Add(hn::LoadU(d, y + i), s0), d, y + i);
      hn::StoreU(hn::Add(hn::LoadU(d, y + i + lanes), s1), d, y + i + lanes);
      hn::StoreU(hn::Add(hn::LoadU(d, y + i + 2 * lanes), s2), d, y + i + 2 * lanes);
      hn::StoreU(hn::Add(hn::LoadU(d, y + i + 3 * lanes), s3), d, y + i + 3 * lanes);
    }
    for (; i + lanes <= width; i += lanes) {
      auto sums = hn::Zero(d);
      for (std::int64_t j = begin; j < end; ++j) {
        sums = hn::MulAdd(hn::Set(d, factors[j]), hn::LoadU(d, table + rows[j] * width + i), sums);
      }
      hn::StoreU(hn::Add(hn::LoadU(d, y + i), sums), d, y + i);
    }
    for (; i < width; ++i) {
      float sum = 0;
      for (std::int64_t j = begin; j < end; ++j) sum = std::fma(factors[j], table[rows[j] * width + i], sum);
      y[i] += sum;
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {

HWY_EXPORT(dot_rows_f32);
HWY_EXPORT(add_weighted_rows_f32);

}  // namespace

void dot_rows(float* out, const float* x, const float* table, const std::int64_t* rows, std::int64_t count,
              std::int64_t width) {
  HWY_DYNAMIC_DISPATCH(dot_rows_f32)(out, x, table, rows, count, width);
}
void dot_rows(double* out, const double* x, const double* table, const std::int64_t* rows, std::int64_t count,
              std::int64_t width) {
  for (std::int64_t j = 0; j < count; ++j) {
    double sum = 0;
    for (std::int64_t i = 0; i < width; ++i) sum += x[i] * table[rows[j] * width + i];
    out[j] = sum;
  }
}

void add_weighted_rows(float* y, const float* factors, const float* table, const std::int64_t* rows, std::int64_t count,
                       std::int64_t width) {
  HWY_DYNAMIC_DISPATCH(add_weighted_rows_f32)(y, factors, table, rows, count, width);
}
void add_weighted_rows(double* y, const double* factors, const double* table, const std::int64_t* rows,
                       std::int64_t count, std::int64_t width) {
  for (std::int64_t j = 0; j < count; ++j) {
    for (std::int64_t i = 0; i < width; ++i) y[i] += factors[j] * table[rows[j] * width + i];
  }
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
