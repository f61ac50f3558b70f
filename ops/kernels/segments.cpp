#include "tally/ops/kernels/segments.h"

#include <algorithm>
#include <vector>

#include "tally/core/parallel.h"
#include "tally/ops/kernels/columns.h"
#include "tally/ops/kernels/reduce.h"

namespace tally::kernels {
namespace {

constexpr std::int64_t kSequencesOfTask = 16;

/// body(sequence, first row, number of rows)
template <class Body>
void for_each_segment(std::span<const std::int64_t> bounds, Body&& body) {
  parallel_for(static_cast<std::int64_t>(bounds.size()) - 1, kSequencesOfTask,
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i) {
                   const std::int64_t first = bounds[static_cast<std::size_t>(i)];
                   body(i, first, bounds[static_cast<std::size_t>(i) + 1] - first);
                 }
               });
}

}  // namespace

template <class T>
void segment_sums(std::span<const std::int64_t> bounds, std::int64_t width, bool mean, const T* x, T* out) {
  for_each_segment(bounds, [&](std::int64_t i, std::int64_t first, std::int64_t count) {
    std::vector<double> total(static_cast<std::size_t>(width));
    add_column_sums(total.data(), x + first * width, count, width, width);
    const double divisor = mean && count > 0 ? static_cast<double>(count) : 1;
    T* to = out + i * width;
    for (const double sum : total) *to++ = static_cast<T>(sum / divisor);
  });
}

template <class T>
void segment_sums_gradient(std::span<const std::int64_t> bounds, std::int64_t width, bool mean, const T* g, T* gx) {
  for_each_segment(bounds, [&](std::int64_t i, std::int64_t first, std::int64_t count) {
    if (count == 0) return;
    const T *from = g + i * width, divisor = mean ? static_cast<T>(count) : T{1};
    T* to = gx + first * width;
    for (std::int64_t j = 0; j < width; ++j) to[j] = from[j] / divisor;
    for (std::int64_t row = 1; row < count; ++row) std::copy_n(to, width, to + row * width);
  });
}

template <class T>
void segment_max(std::span<const std::int64_t> bounds, std::int64_t width, const T* x, T* out, std::int64_t* where) {
  for_each_segment(bounds, [&](std::int64_t i, std::int64_t first, std::int64_t count) {
    T* best = out + i * width;
    std::fill_n(best, width, T{0});
    std::fill_n(where + i * width, width, std::int64_t{-1});
    update_extremes(true, best, where + i * width, x + first * width, first * width, count, width, width);
  });
}

template <class T>
void place_where_known(const std::int64_t* where, const T* g, std::int64_t n, T* gx) {
  for (std::int64_t i = 0; i < n; ++i) {
    if (where[i] >= 0) gx[where[i]] = g[i];
  }
}

#define TALLY_INSTANTIATE(T)                                                                            \
  template void segment_sums(std::span<const std::int64_t>, std::int64_t, bool, const T*, T*);          \
  template void segment_sums_gradient(std::span<const std::int64_t>, std::int64_t, bool, const T*, T*); \
  template void segment_max(std::span<const std::int64_t>, std::int64_t, const T*, T*, std::int64_t*);  \
  template void place_where_known(const std::int64_t*, const T*, std::int64_t, T*);
TALLY_INSTANTIATE(float)
TALLY_INSTANTIATE(double)
#undef TALLY_INSTANTIATE

}  // namespace tally::kernels
