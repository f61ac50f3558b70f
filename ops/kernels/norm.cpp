// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/norm.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <cmath>

#include "tally/ops/kernels/columns.h"
#include "tally/ops/kernels/dropout-inl.h"
#include "tally/ops/kernels/norm.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

/// Calls body(j, count) over a row, and flush() after every run of vectors: sums are kept in lanes over a run, in
/// double over the row.
template <class D, class Body, class Flush>
HWY_INLINE void for_each_run(D d, std::int64_t columns, Body&& body, Flush&& flush) {
  const std::int64_t run = 16 * static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t first = 0; first < columns; first += run) {
    for_each_vector(d, std::min(run, columns - first),
                    [&](std::int64_t i, std::int64_t count) { body(first + i, count); });
    flush();
  }
}

template <class D>
HWY_INLINE double total_of(D d, hn::Vec<D> v) {
  return static_cast<double>(hn::GetLane(hn::SumOfLanes(d, v)));
}

/// Zero in the lanes beyond `count`.
template <class D>
HWY_INLINE hn::Vec<D> first_lanes(D d, hn::Vec<D> v, std::int64_t count) {
  if (count == static_cast<std::int64_t>(hn::Lanes(d))) return v;
  return hn::IfThenElseZero(hn::FirstN(d, static_cast<std::size_t>(count)), v);
}

/// sum = residual + dropout(x) for one row; returns the sum over the row when kTotal.
template <bool kTotal, class T>
HWY_INLINE double add_residual(const NormForward<T>& call, std::int64_t row, MaskRows& bits) {
  const hn::ScalableTag<T> d;
  const std::int64_t at = row * call.columns;
  auto partial = hn::Zero(d);
  double total = 0;
  for (std::int64_t first = 0; first < call.columns; first += MaskRows::kRun) {
    const std::int64_t n = std::min(MaskRows::kRun, call.columns - first);
    const MaskBits* run = call.mask == nullptr ? nullptr : bits.at(row, first, n);
    for_each_run(
        d, n,
        [&](std::int64_t i, std::int64_t count) {
          const std::int64_t j = at + first + i;
          auto v = load_lanes(d, call.x + j, count);
          if (run != nullptr) v = drop(d, v, run + i, *call.mask);
          v = hn::Add(v, load_lanes(d, call.residual + j, count));
          store_lanes(v, d, call.sum + j, count);
          if constexpr (kTotal) partial = hn::Add(partial, first_lanes(d, v, count));
        },
        [&] {
          if constexpr (kTotal) total += total_of(d, partial);
          partial = hn::Zero(d);
        });
  }
  return total;
}

template <class T>
double row_total(const T* x, std::int64_t columns) {
  const hn::ScalableTag<T> d;
  auto partial = hn::Zero(d);
  double total = 0;
  for_each_run(
      d, columns, [&](std::int64_t j, std::int64_t count) { partial = hn::Add(partial, load_lanes(d, x + j, count)); },
      [&] {
        total += total_of(d, partial);
        partial = hn::Zero(d);
      });
  return total;
}

template <bool kCentered, class T>
void normalize_rows(const NormForward<T>& call, std::int64_t begin, std::int64_t end) {
  const hn::ScalableTag<T> d;
  MaskRows bits(call.mask, call.first_row, end, call.columns);
  const auto columns = static_cast<double>(call.columns);
  for (std::int64_t row = begin; row < end; ++row) {
    const T* x = call.x + row * call.columns;
    double total = 0;
    if (call.residual != nullptr) {
      total = add_residual<kCentered>(call, row, bits);
      x = call.sum + row * call.columns;
    } else if constexpr (kCentered) {
      total = row_total(x, call.columns);
    }
    // Deviations from a first estimate of the mean are small and nearly exact; their own mean corrects the estimate.
    const T center = static_cast<T>(total / columns);
    const auto vcenter = hn::Set(d, center);
    auto sums = hn::Zero(d), squares = hn::Zero(d);
    double deviations = 0, square_deviations = 0;
    for_each_run(
        d, call.columns,
        [&](std::int64_t j, std::int64_t count) {
          auto v = load_lanes(d, x + j, count);
          if constexpr (kCentered) {
            v = first_lanes(d, hn::Sub(v, vcenter), count);
            sums = hn::Add(sums, v);
          }
          squares = hn::MulAdd(v, v, squares);
        },
        [&] {
          if constexpr (kCentered) deviations += total_of(d, sums);
          square_deviations += total_of(d, squares);
          sums = squares = hn::Zero(d);
        });
    const double correction = deviations / columns;
    const double variance = std::max(square_deviations / columns - correction * correction, 0.0);
    const double inverse = 1 / std::sqrt(variance + call.epsilon);
    T* statistics = call.statistics + row * kNormStatistics;
    statistics[0] = center;
    statistics[1] = static_cast<T>(correction);
    statistics[2] = static_cast<T>(inverse);
    const auto vcorrection = hn::Set(d, statistics[1]), vinverse = hn::Set(d, statistics[2]);
    T* y = call.y + row * call.columns;
    for_each_vector(d, call.columns, [&](std::int64_t j, std::int64_t count) {
      auto v = load_lanes(d, x + j, count);
      if constexpr (kCentered) v = hn::Sub(hn::Sub(v, vcenter), vcorrection);
      v = hn::Mul(v, vinverse);
      if (call.weight != nullptr) v = hn::Mul(v, load_lanes(d, call.weight + j, count));
      if (call.bias != nullptr) v = hn::Add(v, load_lanes(d, call.bias + j, count));
      store_lanes(v, d, y + j, count);
    });
  }
}

/// The normalised elements of a row.
template <bool kCentered, class D>
struct Row {
  D d;
  const hn::TFromD<D>* x;
  hn::Vec<D> center, correction, inverse;

  HWY_INLINE hn::Vec<D> at(std::int64_t j, std::int64_t count) const {
    auto v = load_lanes(d, x + j, count);
    if constexpr (kCentered) v = hn::Sub(hn::Sub(v, center), correction);
    return hn::Mul(v, inverse);
  }
};

/// First pass over a row: adds gy * u and gy to the columns' sums where wanted, returns the means of h and h * u, where
/// h = gy * weight.
template <bool kCentered, class D, class T>
HWY_INLINE void row_means(const Row<kCentered, D>& u, const NormBackward<T>& call, const T* gy, T* weight_sums,
                          T* bias_sums, T& mean, T& product_mean) {
  const D d = u.d;
  auto sums = hn::Zero(d), products = hn::Zero(d);
  double sum = 0, product = 0;
  for_each_run(
      d, call.columns,
      [&](std::int64_t j, std::int64_t count) {
        const auto v = u.at(j, count);
        auto h = load_lanes(d, gy + j, count);
        if (weight_sums != nullptr) {
          store_lanes(hn::MulAdd(h, v, load_lanes(d, weight_sums + j, count)), d, weight_sums + j, count);
        }
        if (bias_sums != nullptr) store_lanes(hn::Add(h, load_lanes(d, bias_sums + j, count)), d, bias_sums + j, count);
        if (call.weight != nullptr) h = hn::Mul(h, load_lanes(d, call.weight + j, count));
        if constexpr (kCentered) sums = hn::Add(sums, h);
        products = hn::MulAdd(h, v, products);
      },
      [&] {
        if constexpr (kCentered) sum += total_of(d, sums);
        product += total_of(d, products);
        sums = products = hn::Zero(d);
      });
  mean = static_cast<T>(sum / static_cast<double>(call.columns));
  product_mean = static_cast<T>(product / static_cast<double>(call.columns));
}

/// Second pass: the gradient of the sum, and of x through the mask.
template <bool kCentered, class D, class T>
HWY_INLINE void row_gradient(const Row<kCentered, D>& u, const NormBackward<T>& call, std::int64_t row, T mean,
                             T product_mean, MaskRows& bits) {
  const D d = u.d;
  const std::int64_t at = row * call.columns;
  const auto vmean = hn::Set(d, mean), vproduct = hn::Set(d, product_mean);
  const bool masked = call.mask != nullptr && call.gx != nullptr;
  for (std::int64_t first = 0; first < call.columns; first += MaskRows::kRun) {
    const std::int64_t n = std::min(MaskRows::kRun, call.columns - first);
    const MaskBits* run = masked ? bits.at(row, first, n) : nullptr;
    for_each_vector(d, n, [&](std::int64_t i, std::int64_t count) {
      const std::int64_t j = first + i;
      auto h = load_lanes(d, call.gy + at + j, count);
      if (call.weight != nullptr) h = hn::Mul(h, load_lanes(d, call.weight + j, count));
      if constexpr (kCentered) h = hn::Sub(h, vmean);
      auto g = hn::Mul(hn::NegMulAdd(u.at(j, count), vproduct, h), u.inverse);
      if (call.gsum != nullptr) g = hn::Add(g, load_lanes(d, call.gsum + at + j, count));
      if (call.gresidual != nullptr) store_lanes(g, d, call.gresidual + at + j, count);
      if (call.gx != nullptr) store_lanes(masked ? drop(d, g, run + i, *call.mask) : g, d, call.gx + at + j, count);
    });
  }
}

template <bool kCentered, class T>
void backward_rows(const NormBackward<T>& call, std::int64_t begin, std::int64_t end, double* gweight, double* gbias,
                   T* scratch) {
  using D = hn::ScalableTag<T>;
  const D d;
  MaskRows bits(call.mask, call.first_row, end, call.columns);
  T* weight_sums = gweight == nullptr ? nullptr : scratch;
  T* bias_sums = gbias == nullptr ? nullptr : scratch + call.columns;
  for (std::int64_t run = begin; run < end; run += kRowRun) {
    std::fill_n(scratch, 2 * call.columns, T{0});
    for (std::int64_t row = run; row < std::min(end, run + kRowRun); ++row) {
      const T* statistics = call.statistics + row * kNormStatistics;
      const Row<kCentered, D> u{d, call.sum + row * call.columns, hn::Set(d, statistics[0]), hn::Set(d, statistics[1]),
                                hn::Set(d, statistics[2])};
      T mean = 0, product_mean = 0;
      row_means(u, call, call.gy + row * call.columns, weight_sums, bias_sums, mean, product_mean);
      if (call.gx != nullptr || call.gresidual != nullptr) row_gradient(u, call, row, mean, product_mean, bits);
    }
    for (std::int64_t j = 0; j < call.columns; ++j) {
      if (gweight != nullptr) gweight[j] += static_cast<double>(weight_sums[j]);
      if (gbias != nullptr) gbias[j] += static_cast<double>(bias_sums[j]);
    }
  }
}

template <class T>
void normalize_kind(bool centred, const NormForward<T>& call, std::int64_t begin, std::int64_t end) {
  if (centred) return normalize_rows<true>(call, begin, end);
  normalize_rows<false>(call, begin, end);
}

template <class T>
void backward_kind(bool centred, const NormBackward<T>& call, std::int64_t begin, std::int64_t end, double* gweight,
                   double* gbias, T* scratch) {
  if (centred) return backward_rows<true>(call, begin, end, gweight, gbias, scratch);
  backward_rows<false>(call, begin, end, gweight, gbias, scratch);
}

void normalize_f32(bool centred, const NormForward<float>& call, std::int64_t begin, std::int64_t end) {
  normalize_kind(centred, call, begin, end);
}
void backward_f32(bool centred, const NormBackward<float>& call, std::int64_t begin, std::int64_t end, double* gweight,
                  double* gbias, float* scratch) {
  backward_kind(centred, call, begin, end, gweight, gbias, scratch);
}

#if HWY_ONCE
// The same for checking in f64, for the baseline target only.
void normalize_f64(bool centred, const NormForward<double>& call, std::int64_t begin, std::int64_t end) {
  normalize_kind(centred, call, begin, end);
}
void backward_f64(bool centred, const NormBackward<double>& call, std::int64_t begin, std::int64_t end, double* gweight,
                  double* gbias, double* scratch) {
  backward_kind(centred, call, begin, end, gweight, gbias, scratch);
}
#endif

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {
HWY_EXPORT(normalize_f32);
HWY_EXPORT(backward_f32);
}  // namespace

void normalize(bool centred, const NormForward<float>& call, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(normalize_f32)(centred, call, begin, end);
}
void normalize(bool centred, const NormForward<double>& call, std::int64_t begin, std::int64_t end) {
  HWY_STATIC_DISPATCH(normalize_f64)(centred, call, begin, end);
}

void normalize_backward(bool centred, const NormBackward<float>& call, std::int64_t begin, std::int64_t end,
                        double* gweight, double* gbias, float* scratch) {
  HWY_DYNAMIC_DISPATCH(backward_f32)(centred, call, begin, end, gweight, gbias, scratch);
}
void normalize_backward(bool centred, const NormBackward<double>& call, std::int64_t begin, std::int64_t end,
                        double* gweight, double* gbias, double* scratch) {
  HWY_STATIC_DISPATCH(backward_f64)(centred, call, begin, end, gweight, gbias, scratch);
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
