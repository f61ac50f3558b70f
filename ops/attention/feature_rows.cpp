#include "tally/ops/attention/feature_rows.h"

#include <algorithm>
#include <cmath>

#include "tally/core/parallel.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::ops::detail {
namespace {

constexpr std::int64_t kRows = 64;
const double kHalfRoot = std::sqrt(0.5);

template <class T>
T elu_of(T x) {
  return x > 0 ? x : std::expm1(x);
}
template <class T>
T elu_slope(T x) {
  return x > 0 ? T{1} : std::exp(x);
}

/// 1 / the length of elu(x).
template <class T>
double inverse_length(const T* x, std::int64_t d) {
  double squares = kLinRecEpsilon;
  for (std::int64_t i = 0; i < d; ++i) squares += double{elu_of(x[i])} * double{elu_of(x[i])};
  return 1 / std::sqrt(squares);
}

template <class T>
void split_softmax(const T* x, std::int64_t d, T* y) {
  T largest = 0;
  for (std::int64_t i = 0; i < d; ++i) largest = std::max(largest, std::abs(x[i]));
  double sum = 0;
  for (std::int64_t i = 0; i < 2 * d; ++i) {
    y[i] = std::exp((i < d ? x[i] : -x[i - d]) - largest);
    sum += double{y[i]};
  }
  for (std::int64_t i = 0; i < 2 * d; ++i) y[i] = static_cast<T>(double{y[i]} / sum);
}

template <class T>
void map_row(FeatureKind kind, const T* x, std::int64_t d, T* y) {
  switch (kind) {
    case FeatureKind::relu:
      for (std::int64_t i = 0; i < d; ++i) y[i] = std::max(x[i], T{0});
      return;
    case FeatureKind::elu:
      for (std::int64_t i = 0; i < d; ++i) y[i] = x[i] > 0 ? x[i] + 1 : std::exp(x[i]);
      return;
    case FeatureKind::split_softmax:
      return split_softmax(x, d, y);
    case FeatureKind::linrec: {
      const double by = inverse_length(x, d);
      for (std::int64_t i = 0; i < d; ++i) y[i] = static_cast<T>(by * double{elu_of(x[i])});
      return;
    }
    case FeatureKind::taylor2: {
      y[0] = 1;
      std::copy_n(x, d, y + 1);
      for (std::int64_t i = 0; i < d; ++i) {
        const T by = static_cast<T>(kHalfRoot * double{x[i]});
        for (std::int64_t j = 0; j < d; ++j) y[1 + d + i * d + j] = by * x[j];
      }
    }
  }
}

/// `room` [feature_width].
template <class T>
void map_row_backward(FeatureKind kind, const T* x, std::int64_t d, const T* gy, T* gx, T* room) {
  switch (kind) {
    case FeatureKind::relu:
      for (std::int64_t i = 0; i < d; ++i) gx[i] = x[i] > 0 ? gy[i] : T{0};
      return;
    case FeatureKind::elu:
      for (std::int64_t i = 0; i < d; ++i) gx[i] = gy[i] * elu_slope(x[i]);
      return;
    case FeatureKind::split_softmax: {
      split_softmax(x, d, room);
      double mean = 0;
      for (std::int64_t i = 0; i < 2 * d; ++i) mean += double{gy[i]} * double{room[i]};
      for (std::int64_t i = 0; i < d; ++i)
        gx[i] =
            static_cast<T>(double{room[i]} * (double{gy[i]} - mean) - double{room[d + i]} * (double{gy[d + i]} - mean));
      return;
    }
    case FeatureKind::linrec: {
      const double by = inverse_length(x, d);
      double along = 0;  // of the gradient and the features
      for (std::int64_t i = 0; i < d; ++i) along += double{gy[i]} * by * double{elu_of(x[i])};
      for (std::int64_t i = 0; i < d; ++i)
        gx[i] = static_cast<T>(by * (double{gy[i]} - along * by * double{elu_of(x[i])}) * double{elu_slope(x[i])});
      return;
    }
    case FeatureKind::taylor2: {
      const T* squares = gy + 1 + d;
      for (std::int64_t i = 0; i < d; ++i) {
        double sum = 0;
        for (std::int64_t j = 0; j < d; ++j)
          sum += (double{squares[i * d + j]} + double{squares[j * d + i]}) * double{x[j]};
        gx[i] = static_cast<T>(double{gy[1 + i]} + kHalfRoot * sum);
      }
    }
  }
}

}  // namespace

template <class T>
void map_rows(const FeatureRows& shape, const T* x, T* y) {
  const std::int64_t d = shape.width, m = feature_width(shape.kind, d);
  parallel_for(shape.rows, kRows, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) map_row(shape.kind, x + i * d, d, y + i * m);
  });
}

template <class T>
void map_rows_backward(const FeatureRows& shape, const T* x, const T* gy, T* gx) {
  const std::int64_t d = shape.width, m = feature_width(shape.kind, d);
  parallel_for(shape.rows, kRows, [&](std::int64_t begin, std::int64_t end) {
    kernels::Scratch<T> room(m);
    for (std::int64_t i = begin; i < end; ++i)
      map_row_backward(shape.kind, x + i * d, d, gy + i * m, gx + i * d, room.data());
  });
}

template void map_rows(const FeatureRows&, const float*, float*);
template void map_rows(const FeatureRows&, const double*, double*);
template void map_rows_backward(const FeatureRows&, const float*, const float*, float*);
template void map_rows_backward(const FeatureRows&, const double*, const double*, double*);

}  // namespace tally::ops::detail
