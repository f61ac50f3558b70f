// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/column_exponentials.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "tally/core/exponential-inl.h"
#include "tally/ops/kernels/column_exponentials.h"
#include "tally/ops/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;
using V = hn::Vec<F>;

/// Numbers of a column that are summed in f32.
constexpr std::int64_t kRun = 16;
/// Bytes of a cache line.
constexpr std::int64_t kLine = 64;

#define TALLY_UNROLL _Pragma("GCC unroll 4")

/// Columns [0, N vectors), of the last vector `last` lanes. Several vectors, so that their chains overlap. Asks for
/// what is upcoming from byte `asked` on.
template <int N>
void exponentials_down(float* e, std::int64_t n, std::int64_t stride, std::int64_t last, float* largest, double* sums,
                       const Upcoming& upcoming, std::int64_t& asked) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto count = [&](int v) HWY_ATTR { return v == N - 1 ? last : lanes; };
  const V lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  V shift[N];
  if (sums != nullptr) {
    TALLY_UNROLL for (int v = 0; v < N; ++v) shift[v] = lowest;
    for (std::int64_t i = 0; i < n; ++i) {
      TALLY_UNROLL for (int v = 0; v < N; ++v) {
        shift[v] = hn::Max(shift[v], load_lanes(d, e + i * stride + v * lanes, count(v)));
      }
    }
    TALLY_UNROLL for (int v = 0; v < N; ++v) {
      store_lanes(shift[v], d, largest + v * lanes, count(v));
      std::fill_n(sums + v * lanes, count(v), 0.0);
    }
  } else {
    TALLY_UNROLL for (int v = 0; v < N; ++v) shift[v] = load_lanes(d, largest + v * lanes, count(v));
  }
  TALLY_UNROLL for (int v = 0; v < N; ++v) shift[v] = hn::IfThenZeroElse(hn::Eq(shift[v], lowest), shift[v]);
  HWY_ALIGN float run_sums[N * HWY_MAX_BYTES / sizeof(float)];
  for (std::int64_t run = 0; run < n; run += kRun) {
    V sum[N];
    TALLY_UNROLL for (int v = 0; v < N; ++v) sum[v] = hn::Zero(d);
    for (std::int64_t i = run; i < std::min(run + kRun, n); ++i) {
      for (const Upcoming::Part& part : upcoming.parts) {
        if (asked + N * kLine > part.bytes) continue;
        TALLY_UNROLL for (int v = 0; v < N; ++v) hwy::Prefetch(part.from + asked + v * kLine);
      }
      asked += N * kLine;
      TALLY_UNROLL for (int v = 0; v < N; ++v) {
        float* at = e + i * stride + v * lanes;
        const V power =
            tally::HWY_NAMESPACE::simd::exp_of_difference(d, hn::Sub(load_lanes(d, at, count(v)), shift[v]));
        store_lanes(power, d, at, count(v));
        sum[v] = hn::Add(sum[v], power);
      }
    }
    if (sums == nullptr) continue;
    TALLY_UNROLL for (int v = 0; v < N; ++v) hn::Store(sum[v], d, run_sums + v * lanes);
    for (std::int64_t c = 0; c < (N - 1) * lanes + last; ++c) sums[c] += static_cast<double>(run_sums[c]);
  }
}

#undef TALLY_UNROLL

void column_exponentials_f32(float* e, std::int64_t n, std::int64_t columns, std::int64_t stride, float* largest,
                             double* sums, const Upcoming& upcoming) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(F()));
  std::int64_t asked = 0;
  for (std::int64_t c = 0; c < columns; c += 4 * lanes) {
    const std::int64_t vectors = std::min<std::int64_t>(4, (columns - c + lanes - 1) / lanes);
    const std::int64_t last = std::min(lanes, columns - c - (vectors - 1) * lanes);
    const auto of = [&](auto n_vectors) HWY_ATTR {
      exponentials_down<n_vectors>(e + c, n, stride, last, largest + c, sums == nullptr ? nullptr : sums + c, upcoming,
                                   asked);
    };
    if (vectors == 4) of(std::integral_constant<int, 4>());
    if (vectors == 3) of(std::integral_constant<int, 3>());
    if (vectors == 2) of(std::integral_constant<int, 2>());
    if (vectors == 1) of(std::integral_constant<int, 1>());
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {

HWY_EXPORT(column_exponentials_f32);

}  // namespace

void column_exponentials(float* e, std::int64_t n, std::int64_t columns, std::int64_t stride, float* largest,
                         double* sums, const Upcoming& upcoming) {
  HWY_DYNAMIC_DISPATCH(column_exponentials_f32)(e, n, columns, stride, largest, sums, upcoming);
}

void column_exponentials(double* e, std::int64_t n, std::int64_t columns, std::int64_t stride, double* largest,
                         double* sums, const Upcoming&) {
  constexpr double kLowest = -std::numeric_limits<double>::infinity();
  for (std::int64_t c = 0; c < columns; ++c) {
    if (sums != nullptr) {
      largest[c] = kLowest;
      for (std::int64_t i = 0; i < n; ++i) largest[c] = std::max(largest[c], e[i * stride + c]);
    }
    const double shift = largest[c] > kLowest ? largest[c] : 0;
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i) sum += e[i * stride + c] = std::exp(e[i * stride + c] - shift);
    if (sums != nullptr) sums[c] = sum;
  }
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
