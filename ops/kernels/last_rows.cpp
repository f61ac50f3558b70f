#include "tally/ops/kernels/last_rows.h"

#include <algorithm>

#include "tally/core/parallel.h"

namespace tally::kernels {
namespace {

constexpr std::int64_t kSequences = 64;  // of a task

/// A sequence, and how many of its last rows are its own and how many stood before it.
struct Tail {
  std::int64_t sequence, first, last, own, before;
};

template <class Body>
void for_each_tail(std::span<const std::int64_t> bounds, std::int64_t count, Body&& body) {
  parallel_for(static_cast<std::int64_t>(bounds.size()) - 1, kSequences, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = bounds[static_cast<std::size_t>(i)], last = bounds[static_cast<std::size_t>(i) + 1];
      const std::int64_t own = std::min(count, last - first);
      body(Tail{i, first, last, own, count - own});
    }
  });
}

}  // namespace

template <class T>
void last_rows(std::span<const std::int64_t> bounds, std::int64_t count, std::int64_t width, const T* x,
               const T* initial, T* out) {
  for_each_tail(bounds, count, [&](const Tail& tail) {
    T* to = out + tail.sequence * count * width;
    if (initial == nullptr) {
      std::fill_n(to, tail.before * width, T{0});
    } else {
      std::copy_n(initial + (tail.sequence * count + tail.own) * width, tail.before * width, to);
    }
    std::copy_n(x + (tail.last - tail.own) * width, tail.own * width, to + tail.before * width);
  });
}

template <class T>
void last_rows_gradient(std::span<const std::int64_t> bounds, std::int64_t count, std::int64_t width, const T* g, T* gx,
                        T* ginitial) {
  for_each_tail(bounds, count, [&](const Tail& tail) {
    const T* from = g + tail.sequence * count * width;
    if (ginitial != nullptr) {
      T* to = ginitial + tail.sequence * count * width;
      std::fill_n(to, tail.own * width, T{0});
      std::copy_n(from, tail.before * width, to + tail.own * width);
    }
    if (gx != nullptr) {
      const std::int64_t unseen = tail.last - tail.own - tail.first;
      std::fill_n(gx + tail.first * width, unseen * width, T{0});
      std::copy_n(from + tail.before * width, tail.own * width, gx + (tail.first + unseen) * width);
    }
  });
}

#define TALLY_INSTANTIATE(T)                                                                                  \
  template void last_rows(std::span<const std::int64_t>, std::int64_t, std::int64_t, const T*, const T*, T*); \
  template void last_rows_gradient(std::span<const std::int64_t>, std::int64_t, std::int64_t, const T*, T*, T*);
TALLY_INSTANTIATE(float)
TALLY_INSTANTIATE(double)
#undef TALLY_INSTANTIATE

}  // namespace tally::kernels
