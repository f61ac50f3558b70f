// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/dispatcher_tile.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tally/core/kernels.h"
#include "tally/ops/kernels/dispatcher_tile.h"
#include "tally/ops/kernels/simd_math-inl.h"
#include "tally/ops/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;

std::int64_t first_row_above_f32(const float* scores, std::int64_t rows, std::int64_t columns, const float* reference,
                                 float limit) {
  const F d;
  std::int64_t first = rows;
  for_each_vector(d, columns, [&](std::int64_t c, std::int64_t count) {
    const auto bound = hn::Add(load_lanes(d, reference + c, count), hn::Set(d, limit));
    for (std::int64_t t = 1; t < first; ++t) {
      if (!hn::AllFalse(d, hn::Gt(load_lanes(d, scores + t * columns + c, count), bound))) first = t;
    }
  });
  return first;
}

void weigh_rows_f32(float* scores, std::int64_t rows, std::int64_t count, std::int64_t columns, const float* reference,
                    const float* start, float* inverse, float* maximum) {
  const F d;
  const auto one = hn::Set(d, 1.0f);
  for_each_vector(d, columns, [&](std::int64_t c, std::int64_t lanes) {
    const auto shift = load_lanes(d, reference + c, lanes);
    auto sum = load_lanes(d, start + c, lanes), largest = load_lanes(d, maximum + c, lanes);
    for (std::int64_t t = 0; t < count; ++t) {
      float* at = scores + t * columns + c;
      const auto score = load_lanes(d, at, lanes);
      const auto weight = simd::exp_of_difference(d, hn::Sub(score, shift));
      largest = hn::Max(largest, score);
      sum = hn::Add(sum, weight);
      store_lanes(weight, d, at, lanes);
      store_lanes(hn::Div(one, sum), d, inverse + t * columns + c, lanes);
    }
    store_lanes(largest, d, maximum + c, lanes);
  });
  std::fill(scores + count * columns, scores + rows * columns, 0.0f);
  std::fill(inverse + count * columns, inverse + rows * columns, 0.0f);
}

void multiply_blocks_f32(float* out, const float* x, const float* y, std::int64_t blocks, std::int64_t n) {
  const F d;
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t lanes) {
    const auto factor = load_lanes(d, y + i, lanes);
    for (std::int64_t b = 0; b < blocks; ++b)
      store_lanes(hn::Mul(load_lanes(d, x + b * n + i, lanes), factor), d, out + b * n + i, lanes);
  });
}

void add_products_f32(float* out, const float* x, const float* y, std::int64_t blocks, std::int64_t n) {
  const F d;
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t lanes) {
    auto sum = load_lanes(d, out + i, lanes);
    for (std::int64_t b = 0; b < blocks; ++b)
      sum = hn::MulAdd(load_lanes(d, x + b * n + i, lanes), load_lanes(d, y + b * n + i, lanes), sum);
    store_lanes(sum, d, out + i, lanes);
  });
}

void weight_slope_f32(float* gradient, const float* weights, const float* products, std::int64_t rows,
                      std::int64_t columns, const float* later) {
  const F d;
  for_each_vector(d, columns, [&](std::int64_t c, std::int64_t lanes) {
    auto sum = load_lanes(d, later + c, lanes);
    for (std::int64_t t = rows - 1; t >= 0; --t) {
      const std::int64_t at = t * columns + c;
      sum = hn::Sub(sum, load_lanes(d, products + at, lanes));
      const auto all = hn::Add(load_lanes(d, gradient + at, lanes), sum);
      store_lanes(hn::Mul(load_lanes(d, weights + at, lanes), all), d, gradient + at, lanes);
    }
  });
}

void softmax_in_place_f32(float* x, std::int64_t rows, std::int64_t columns) {
  const F d;
  const auto lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (std::int64_t r = 0; r < rows; ++r) {
    float* row = x + r * columns;
    auto largest = lowest;
    for_each_vector(d, columns, [&](std::int64_t c, std::int64_t lanes) {
      const auto there = hn::FirstN(d, static_cast<std::size_t>(lanes));
      largest = hn::Max(largest, hn::IfThenElse(there, load_lanes(d, row + c, lanes), lowest));
    });
    const auto shift = hn::MaxOfLanes(d, largest);
    auto sum = hn::Zero(d);
    for_each_vector(d, columns, [&](std::int64_t c, std::int64_t lanes) {
      const auto there = hn::FirstN(d, static_cast<std::size_t>(lanes));
      const auto weight = simd::exp_of_difference(d, hn::Sub(load_lanes(d, row + c, lanes), shift));
      sum = hn::Add(sum, hn::IfThenElseZero(there, weight));
      store_lanes(weight, d, row + c, lanes);
    });
    const auto factor = hn::Div(hn::Set(d, 1.0f), hn::SumOfLanes(d, sum));
    for_each_vector(d, columns, [&](std::int64_t c, std::int64_t lanes) {
      store_lanes(hn::Mul(load_lanes(d, row + c, lanes), factor), d, row + c, lanes);
    });
  }
}

void softmax_slope_in_place_f32(float* gradient, const float* shares, std::int64_t rows, std::int64_t columns) {
  const F d;
  for (std::int64_t r = 0; r < rows; ++r) {
    float* row = gradient + r * columns;
    const float* share = shares + r * columns;
    auto sum = hn::Zero(d);
    for_each_vector(d, columns, [&](std::int64_t c, std::int64_t lanes) {
      sum = hn::MulAdd(load_lanes(d, row + c, lanes), load_lanes(d, share + c, lanes), sum);
    });
    const auto mean = hn::SumOfLanes(d, sum);
    for_each_vector(d, columns, [&](std::int64_t c, std::int64_t lanes) {
      const auto centred = hn::Sub(load_lanes(d, row + c, lanes), mean);
      store_lanes(hn::Mul(load_lanes(d, share + c, lanes), centred), d, row + c, lanes);
    });
  }
}

void add_to_sums_f32(double* sums, const double* factor, const float* x, std::int64_t rows, std::int64_t columns,
                     float* rounded) {
  const hn::ScalableTag<double> wide;
  const hn::Rebind<float, hn::ScalableTag<double>> narrow;
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto scale = hn::Set(wide, factor == nullptr ? 1.0 : factor[r]);
    for_each_vector(wide, columns, [&](std::int64_t c, std::int64_t lanes) {
      const std::int64_t at = r * columns + c;
      auto sum = hn::Mul(load_lanes(wide, sums + at, lanes), scale);
      if (x != nullptr) sum = hn::Add(sum, hn::PromoteTo(wide, load_lanes(narrow, x + at, lanes)));
      store_lanes(sum, wide, sums + at, lanes);
      store_lanes(hn::DemoteTo(narrow, sum), narrow, rounded + at, lanes);
    });
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {

HWY_EXPORT(first_row_above_f32);
HWY_EXPORT(weigh_rows_f32);
HWY_EXPORT(multiply_blocks_f32);
HWY_EXPORT(add_products_f32);
HWY_EXPORT(weight_slope_f32);
HWY_EXPORT(softmax_in_place_f32);
HWY_EXPORT(softmax_slope_in_place_f32);
HWY_EXPORT(add_to_sums_f32);

std::int64_t first_row_above(const float* scores, std::int64_t rows, std::int64_t columns, const float* reference,
                             float limit) {
  return HWY_DYNAMIC_DISPATCH(first_row_above_f32)(scores, rows, columns, reference, limit);
}
std::int64_t first_row_above(const double* scores, std::int64_t rows, std::int64_t columns, const double* reference,
                             double limit) {
  for (std::int64_t t = 1; t < rows; ++t) {
    for (std::int64_t c = 0; c < columns; ++c) {
      if (scores[t * columns + c] > reference[c] + limit) return t;
    }
  }
  return rows;
}

void weigh_rows(float* scores, std::int64_t rows, std::int64_t count, std::int64_t columns, const float* reference,
                const float* start, float* inverse, float* maximum) {
  HWY_DYNAMIC_DISPATCH(weigh_rows_f32)(scores, rows, count, columns, reference, start, inverse, maximum);
}
void weigh_rows(double* scores, std::int64_t rows, std::int64_t count, std::int64_t columns, const double* reference,
                const double* start, double* inverse, double* maximum) {
  for (std::int64_t c = 0; c < columns; ++c) {
    double sum = start[c];
    for (std::int64_t t = 0; t < rows; ++t) {
      double& score = scores[t * columns + c];
      if (t < count) maximum[c] = std::max(maximum[c], score);
      score = t < count ? std::exp(score - reference[c]) : 0;
      sum += score;
      inverse[t * columns + c] = t < count ? 1 / sum : 0;
    }
  }
}

void multiply_blocks(float* out, const float* x, const float* y, std::int64_t blocks, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(multiply_blocks_f32)(out, x, y, blocks, n);
}
void multiply_blocks(double* out, const double* x, const double* y, std::int64_t blocks, std::int64_t n) {
  for (std::int64_t i = 0; i < blocks * n; ++i) out[i] = x[i] * y[i % n];
}

void add_products(float* out, const float* x, const float* y, std::int64_t blocks, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(add_products_f32)(out, x, y, blocks, n);
}
void add_products(double* out, const double* x, const double* y, std::int64_t blocks, std::int64_t n) {
  for (std::int64_t i = 0; i < blocks * n; ++i) out[i % n] += x[i] * y[i];
}

void weight_slope(float* gradient, const float* weights, const float* products, std::int64_t rows, std::int64_t columns,
                  const float* later) {
  HWY_DYNAMIC_DISPATCH(weight_slope_f32)(gradient, weights, products, rows, columns, later);
}
void weight_slope(double* gradient, const double* weights, const double* products, std::int64_t rows,
                  std::int64_t columns, const double* later) {
  for (std::int64_t c = 0; c < columns; ++c) {
    double sum = later[c];
    for (std::int64_t at = (rows - 1) * columns + c; at >= 0; at -= columns) {
      sum -= products[at];
      gradient[at] = weights[at] * (gradient[at] + sum);
    }
  }
}

void softmax_in_place(float* x, std::int64_t rows, std::int64_t columns) {
  HWY_DYNAMIC_DISPATCH(softmax_in_place_f32)(x, rows, columns);
}
void softmax_in_place(double* x, std::int64_t rows, std::int64_t columns) {
  for (double* row = x; row != x + rows * columns; row += columns) {
    const double sum = exp_and_sum(row, row, 1, max_value(row, columns), columns);
    scale(row, 1 / sum, columns);
  }
}

void softmax_slope_in_place(float* gradient, const float* shares, std::int64_t rows, std::int64_t columns) {
  HWY_DYNAMIC_DISPATCH(softmax_slope_in_place_f32)(gradient, shares, rows, columns);
}
void softmax_slope_in_place(double* gradient, const double* shares, std::int64_t rows, std::int64_t columns) {
  for (std::int64_t i = 0; i < rows * columns; i += columns) {
    const double mean = dot(gradient + i, shares + i, columns);
    for (std::int64_t c = i; c < i + columns; ++c) gradient[c] = shares[c] * (gradient[c] - mean);
  }
}

void add_to_sums(double* sums, const double* factor, const float* x, std::int64_t rows, std::int64_t columns,
                 float* rounded) {
  HWY_DYNAMIC_DISPATCH(add_to_sums_f32)(sums, factor, x, rows, columns, rounded);
}
void add_to_sums(double* sums, const double* factor, const double* x, std::int64_t rows, std::int64_t columns,
                 double* rounded) {
  for (std::int64_t i = 0; i < rows * columns; ++i) {
    sums[i] = (factor == nullptr ? 1 : factor[i / columns]) * sums[i] + (x == nullptr ? 0 : x[i]);
    rounded[i] = sums[i];
  }
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
