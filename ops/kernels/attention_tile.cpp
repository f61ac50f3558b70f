// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/attention_tile.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tally/ops/kernels/attention_tile.h"
#include "tally/ops/kernels/dropout-inl.h"
#include "tally/ops/kernels/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;

/// Lanes of the vector at `column` that lie in [first, end).
HWY_INLINE hn::Mask<F> inside(F d, std::int64_t column, std::int64_t first, std::int64_t end) {
  const auto up_to = [&](std::int64_t limit) HWY_ATTR {
    return hn::FirstN(d, static_cast<std::size_t>(std::max<std::int64_t>(limit - column, 0)));
  };
  return hn::AndNot(up_to(first), up_to(end));
}

/// 1 or 0 times the scale of kept elements, from the bits at a place.
HWY_INLINE hn::Vec<F> keep_factors(F d, const MaskBits* bits, const TileDropout& dropout) {
  return hn::IfThenZeroElse(dropped(d, bits, dropout.threshold), hn::Set(d, static_cast<float>(dropout.scale)));
}

/// Visible columns of a row, and the whole vectors that hold them.
struct Span {
  std::int64_t first, end, begin_vector, end_vector;
};
HWY_INLINE Span span_of(TileBand band, std::int64_t row, std::int64_t columns, std::int64_t lanes) {
  const std::int64_t first = std::clamp<std::int64_t>(band.first + row, 0, columns);
  const std::int64_t end = std::clamp<std::int64_t>(band.end + row, first, columns);
  return {first, end, first / lanes * lanes, (end + lanes - 1) / lanes * lanes};
}

/// Sets the columns [begin, end) to zero, and more up to whole vectors.
HWY_INLINE void clear_f32(float* row, std::int64_t begin, std::int64_t end) {
  const F d;
  for (std::int64_t c = begin; c < end; c += static_cast<std::int64_t>(hn::Lanes(d)))
    hn::StoreU(hn::Zero(d), d, row + c);
}

/// rescale = exp(before - now), 1 where both are minus infinity; `rescale` holds what was before.
bool rescale_f32(const float* now, float* rescale, std::int64_t rows) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto one = hn::Set(d, 1.0f);
  bool any = false;
  for (std::int64_t r = 0; r < rows; r += lanes) {
    const auto before = hn::LoadU(d, rescale + r), after = hn::LoadU(d, now + r);
    const auto same = hn::Eq(before, after);
    hn::StoreU(hn::IfThenElse(same, one, simd::exp_of_difference(d, hn::Sub(before, after))), d, rescale + r);
    any = any || !hn::AllTrue(d, hn::Or(same, hn::Not(hn::FirstN(d, static_cast<std::size_t>(rows - r)))));
  }
  return any;
}

bool softmax_tile_f32(float* scores, std::int64_t stride, std::int64_t rows, std::int64_t columns, TileBand band,
                      const TileDropout& dropout, float* maximum, double* sum, float* rescale) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (std::int64_t r = 0; r < rows; r += lanes) hn::StoreU(hn::LoadU(d, maximum + r), d, rescale + r);
  // Maxima of all rows first: a row's chain of dependent steps then overlaps with the next row's.
  for (std::int64_t r = 0; r < rows; ++r) {
    float* row = scores + r * stride;
    const Span span = span_of(band, r, columns, lanes);
    if (span.first == span.end) continue;
    auto largest = lowest;
    for (std::int64_t c = span.begin_vector; c < span.end_vector; c += lanes) {
      auto x = hn::LoadU(d, row + c);
      if (c < span.first || c + lanes > span.end) {
        x = hn::IfThenElse(inside(d, c, span.first, span.end), x, lowest);
        hn::StoreU(x, d, row + c);
      }
      largest = hn::Max(largest, x);
    }
    maximum[r] = std::max(maximum[r], hn::GetLane(hn::MaxOfLanes(d, largest)));
  }
  const bool any = rescale_f32(maximum, rescale, rows);
  for (std::int64_t r = 0; r < rows; ++r) {
    float* row = scores + r * stride;
    const Span span = span_of(band, r, columns, lanes);
    if (span.first == span.end) {
      std::fill_n(row, columns, 0.0f);
      continue;
    }
    const auto shift = hn::Set(d, maximum[r]);
    const MaskBits* bits = dropout.bits == nullptr ? nullptr : dropout.bits + r * stride;
    double total = sum[r] * static_cast<double>(rescale[r]);
    for (std::int64_t c = span.begin_vector; c < span.end_vector;) {
      // Short runs in f32 lanes, the runs in double.
      auto partial = hn::Zero(d);
      const std::int64_t run = std::min(span.end_vector, c + 16 * lanes);
      for (; c < run; c += lanes) {
        auto p = simd::exp_of_difference(d, hn::Sub(hn::LoadU(d, row + c), shift));
        partial = hn::Add(partial, p);
        if (bits != nullptr) p = hn::Mul(p, keep_factors(d, bits + c, dropout));
        hn::StoreU(p, d, row + c);
      }
      total += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, partial)));
    }
    sum[r] = total;
    clear_f32(row, 0, span.begin_vector);
    clear_f32(row, span.end_vector, columns);
  }
  return any;
}

void softmax_tile_backward_f32(float* scores, float* gradients, std::int64_t stride, std::int64_t rows,
                               std::int64_t columns, TileBand band, const TileDropout& dropout,
                               const double* log_sum_exp, const float* delta, std::int64_t row_distance, float scale) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto vscale = hn::Set(d, scale);
  for (std::int64_t r = 0; r < rows; ++r) {
    float* row = scores + r * stride;
    float* gradient = gradients == nullptr ? nullptr : gradients + r * stride;
    const MaskBits* bits = dropout.bits == nullptr ? nullptr : dropout.bits + r * stride;
    const Span span = span_of(band, r, columns, lanes);
    const double sum = log_sum_exp[r * row_distance];
    const auto upper = static_cast<float>(sum);
    const auto shift = hn::Set(d, upper);
    const auto rest = hn::Set(d, std::isfinite(upper) ? static_cast<float>(sum - static_cast<double>(upper)) : 0.0f);
    const auto mean = hn::Set(d, gradient == nullptr ? 0.0f : delta[r * row_distance]);
    const std::int64_t begin = span.first == span.end ? 0 : span.begin_vector;
    const std::int64_t end = span.first == span.end ? 0 : span.end_vector;
    for (std::int64_t c = begin; c < end; c += lanes) {
      auto p = simd::exp_of_difference(d, hn::Sub(hn::Sub(hn::LoadU(d, row + c), shift), rest));
      const bool border = c < span.first || c + lanes > span.end;
      if (border) p = hn::IfThenElseZero(inside(d, c, span.first, span.end), p);
      const auto keep = bits == nullptr ? hn::Set(d, 1.0f) : keep_factors(d, bits + c, dropout);
      hn::StoreU(hn::Mul(p, keep), d, row + c);
      if (gradient == nullptr) continue;
      auto g = hn::Mul(hn::Mul(p, vscale), hn::MulSub(hn::LoadU(d, gradient + c), keep, mean));
      // What lies beyond the visible may be anything, and times zero not zero.
      if (border) g = hn::IfThenElseZero(inside(d, c, span.first, span.end), g);
      hn::StoreU(g, d, gradient + c);
    }
    for (float* each : {row, gradient}) {
      if (each == nullptr) continue;
      clear_f32(each, 0, begin);
      clear_f32(each, end, columns);
    }
  }
}

void scale_rows_f32(float* x, std::int64_t stride, std::int64_t rows, std::int64_t columns, const float* factors) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t r = 0; r < rows; ++r) {
    float* row = x + r * stride;
    const auto factor = hn::Set(d, factors[r]);
    std::int64_t c = 0;
    for (; c + lanes <= columns; c += lanes) hn::StoreU(hn::Mul(factor, hn::LoadU(d, row + c)), d, row + c);
    for (; c < columns; ++c) row[c] *= factors[r];
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {

HWY_EXPORT(softmax_tile_f32);
HWY_EXPORT(softmax_tile_backward_f32);
HWY_EXPORT(scale_rows_f32);

/// Factor of a probability at a place under dropout.
double keep_factor(const TileDropout& dropout, std::int64_t place) {
  if (dropout.bits == nullptr) return 1;
  return dropout.bits[place] >= dropout.threshold ? dropout.scale : 0;
}

}  // namespace

bool softmax_tile(float* scores, std::int64_t stride, std::int64_t rows, std::int64_t columns, TileBand band,
                  const TileDropout& dropout, float* maximum, double* sum, float* rescale) {
  return HWY_DYNAMIC_DISPATCH(softmax_tile_f32)(scores, stride, rows, columns, band, dropout, maximum, sum, rescale);
}

bool softmax_tile(double* scores, std::int64_t stride, std::int64_t rows, std::int64_t columns, TileBand band,
                  const TileDropout& dropout, double* maximum, double* sum, double* rescale) {
  bool any = false;
  for (std::int64_t r = 0; r < rows; ++r) {
    double* row = scores + r * stride;
    const std::int64_t first = std::clamp<std::int64_t>(band.first + r, 0, columns);
    const std::int64_t end = std::clamp<std::int64_t>(band.end + r, first, columns);
    const double before = maximum[r];
    for (std::int64_t c = first; c < end; ++c) maximum[r] = std::max(maximum[r], row[c]);
    rescale[r] = before == maximum[r] ? 1 : std::exp(before - maximum[r]);
    any = any || rescale[r] != 1;
    sum[r] *= rescale[r];
    for (std::int64_t c = 0; c < columns; ++c) {
      const double p = c >= first && c < end ? std::exp(row[c] - maximum[r]) : 0;
      sum[r] += p;
      row[c] = p * keep_factor(dropout, r * stride + c);
    }
  }
  return any;
}

void softmax_tile_backward(float* scores, float* gradients, std::int64_t stride, std::int64_t rows,
                           std::int64_t columns, TileBand band, const TileDropout& dropout, const double* log_sum_exp,
                           const float* delta, std::int64_t row_distance, float scale) {
  HWY_DYNAMIC_DISPATCH(softmax_tile_backward_f32)
  (scores, gradients, stride, rows, columns, band, dropout, log_sum_exp, delta, row_distance, scale);
}

void softmax_tile_backward(double* scores, double* gradients, std::int64_t stride, std::int64_t rows,
                           std::int64_t columns, TileBand band, const TileDropout& dropout, const double* log_sum_exp,
                           const double* delta, std::int64_t row_distance, double scale) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t first = std::clamp<std::int64_t>(band.first + r, 0, columns);
    const std::int64_t end = std::clamp<std::int64_t>(band.end + r, first, columns);
    for (std::int64_t c = 0; c < columns; ++c) {
      const std::int64_t place = r * stride + c;
      const bool visible = c >= first && c < end;
      const double p = visible ? std::exp(scores[place] - log_sum_exp[r * row_distance]) : 0;
      const double keep = visible ? keep_factor(dropout, place) : 0;
      scores[place] = p * keep;
      if (gradients == nullptr) continue;
      gradients[place] = visible ? scale * p * (keep * gradients[place] - delta[r * row_distance]) : 0;
    }
  }
}

void scale_rows(float* x, std::int64_t stride, std::int64_t rows, std::int64_t columns, const float* factors) {
  HWY_DYNAMIC_DISPATCH(scale_rows_f32)(x, stride, rows, columns, factors);
}
void scale_rows(double* x, std::int64_t stride, std::int64_t rows, std::int64_t columns, const double* factors) {
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) x[r * stride + c] *= factors[r];
  }
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
