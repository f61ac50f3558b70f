#include "tally/ops/kernels/reduce.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "tally/core/kernels.h"

namespace tally::kernels {

template <class T>
void update_extremes(bool largest, T* best, std::int64_t* where, const T* x, std::int64_t position, std::int64_t rows,
                     std::int64_t columns, std::int64_t stride) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      const T value = x[i * stride + j];
      const bool beats = std::isnan(value) ? !std::isnan(best[j]) : largest ? value > best[j] : value < best[j];
      if (where[j] >= 0 && !beats) continue;
      best[j] = value;
      where[j] = position + i * stride + j;
    }
  }
}

void rows_of_positions(std::int64_t* where, std::int64_t n, std::int64_t size, std::int64_t inner) {
  for (std::int64_t i = 0; i < n; ++i) where[i] = where[i] / inner % size;
}

template <class T>
void scatter_add(T* to, const std::int64_t* where, const T* from, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[where[i]] += from[i];
}

template <class T>
void cumulative_sum(const T* x, T* y, std::int64_t n, std::int64_t columns, std::int64_t stride, bool reverse) {
  constexpr std::int64_t kTile = 64;
  for (std::int64_t first = 0; first < columns; first += kTile) {
    std::array<double, kTile> total{};
    const std::int64_t width = std::min(kTile, columns - first);
    for (std::int64_t step = 0; step < n; ++step) {
      const std::int64_t row = (reverse ? n - 1 - step : step) * stride + first;
      for (std::int64_t j = 0; j < width; ++j) {
        total[static_cast<std::size_t>(j)] += static_cast<double>(x[row + j]);
        y[row + j] = static_cast<T>(total[static_cast<std::size_t>(j)]);
      }
    }
  }
}

template <class T>
T log_sum_exp(const T* x, T* scratch, std::int64_t n) {
  const T largest = max_value(x, n);
  if (std::isfinite(largest))
    return static_cast<T>(static_cast<double>(largest) + std::log(exp_and_sum(scratch, x, T{1}, largest, n)));
  // max_value passes over NaN.
  const bool has_nan = std::any_of(x, x + n, [](T value) { return std::isnan(value); });
  return has_nan ? std::numeric_limits<T>::quiet_NaN() : largest;
}

template <class T>
void log_sum_exp_backward(T gy, const T* x, T* gx, std::int64_t n) {
  const T largest = max_value(x, n);
  if (largest == -std::numeric_limits<T>::infinity()) {
    for (std::int64_t i = 0; i < n; ++i) gx[i] = std::isnan(x[i]) ? x[i] : T{0};
    return;
  }
  const double total = exp_and_sum(gx, x, T{1}, largest, n);
  scale(gx, static_cast<T>(static_cast<double>(gy) / total), n);
}

template <class T>
void top_k(const T* x, std::int64_t n, std::int64_t k, T* values, std::int64_t* indices) {
  if (k == 0) return;
  // A heap of the best so far, the worst of them at its root.
  const auto before = [x](std::int64_t a, std::int64_t b) {
    const bool a_nan = std::isnan(x[a]), b_nan = std::isnan(x[b]);
    if (a_nan || b_nan) return a_nan && (!b_nan || a < b);
    return x[a] > x[b] || (x[a] == x[b] && a < b);
  };
  for (std::int64_t i = 0; i < k; ++i) indices[i] = i;
  std::make_heap(indices, indices + k, before);
  for (std::int64_t i = k; i < n; ++i) {
    // Later elements win only when they are larger (or NaN, which no comparison says it is not).
    if (x[i] <= x[indices[0]] || !before(i, indices[0])) continue;
    std::pop_heap(indices, indices + k, before);
    indices[k - 1] = i;
    std::push_heap(indices, indices + k, before);
  }
  std::sort_heap(indices, indices + k, before);
  for (std::int64_t i = 0; i < k; ++i) values[i] = x[indices[i]];
}

void add_row_starts(std::int64_t* indices, std::int64_t rows, std::int64_t k, std::int64_t n) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < k; ++j) indices[i * k + j] += i * n;
  }
}

#define TALLY_INSTANTIATE(T)                                                                                 \
  template void update_extremes(bool, T*, std::int64_t*, const T*, std::int64_t, std::int64_t, std::int64_t, \
                                std::int64_t);                                                               \
  template void scatter_add(T*, const std::int64_t*, const T*, std::int64_t);                                \
  template void cumulative_sum(const T*, T*, std::int64_t, std::int64_t, std::int64_t, bool);                \
  template T log_sum_exp(const T*, T*, std::int64_t);                                                        \
  template void log_sum_exp_backward(T, const T*, T*, std::int64_t);                                         \
  template void top_k(const T*, std::int64_t, std::int64_t, T*, std::int64_t*)
TALLY_INSTANTIATE(float);
TALLY_INSTANTIATE(double);
#undef TALLY_INSTANTIATE

}  // namespace tally::kernels
