#include "tally/ops/kernels/lookup_order.h"

#include <algorithm>
#include <numeric>

#include "tally/core/kernels.h"

namespace tally::kernels {

std::int64_t LookupOrder::at(std::int64_t row) const {
  return std::lower_bound(places.begin(), places.end(), row) - places.begin();
}

std::vector<LookedUp> looked_up(const LookupOrder& order) {
  std::vector<LookedUp> documents;
  const auto count = static_cast<std::int64_t>(order.places.size());
  std::int64_t first = 0;
  for (std::int64_t document = 0; document < order.documents() && first < count; ++document) {
    const std::int64_t row = order.row(document), next = order.row(document + 1);
    if (order.place(first) >= next) continue;
    const std::int64_t end = order.at(next);
    documents.push_back({row, next - row, first, end});
    first = end;
  }
  return documents;
}

void sort_lookups(std::span<const std::int64_t> places, std::span<std::int64_t> sorted,
                  std::span<std::int64_t> lookups) {
  std::iota(lookups.begin(), lookups.end(), 0);
  if (!std::is_sorted(places.begin(), places.end())) {
    std::sort(lookups.begin(), lookups.end(), [&](std::int64_t a, std::int64_t b) {
      const std::int64_t x = places[static_cast<std::size_t>(a)], y = places[static_cast<std::size_t>(b)];
      return x != y ? x < y : a < b;
    });
  }
  for (std::size_t i = 0; i < places.size(); ++i) sorted[i] = places[static_cast<std::size_t>(lookups[i])];
}

template <class T>
void gather_lookups(const T* from, std::int64_t stride, const std::int64_t* lookups, std::int64_t n, std::int64_t width,
                    T* to) {
  for (std::int64_t i = 0; i < n; ++i) std::copy_n(from + lookups[i] * stride, width, to + i * width);
}

template <class T>
void scatter_lookups(const T* from, const std::int64_t* lookups, std::int64_t n, std::int64_t width, bool add, T* to) {
  for (std::int64_t i = 0; i < n; ++i) {
    T* row = to + lookups[i] * width;
    if (add) {
      add_into(row, from + i * width, width);
    } else {
      std::copy_n(from + i * width, width, row);
    }
  }
}

template void gather_lookups(const float*, std::int64_t, const std::int64_t*, std::int64_t, std::int64_t, float*);
template void gather_lookups(const double*, std::int64_t, const std::int64_t*, std::int64_t, std::int64_t, double*);
template void scatter_lookups(const float*, const std::int64_t*, std::int64_t, std::int64_t, bool, float*);
template void scatter_lookups(const double*, const std::int64_t*, std::int64_t, std::int64_t, bool, double*);

}  // namespace tally::kernels
