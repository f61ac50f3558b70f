#include "tally/ops/kernels/local_mixing.h"

#include <algorithm>

#include "tally/core/kernels.h"
#include "tally/core/parallel.h"

namespace tally::kernels {
namespace {

/// Rows of a parallel task.
constexpr std::int64_t kRows = 64;

/// Calls body(row, first, end) for every row, with the rows of its sequence from `before` rows before it to `after`
/// rows after it.
template <class Body>
void over_neighbours(const LocalMixingPlan& plan, std::int64_t before, std::int64_t after, Body&& body) {
  const std::int64_t rows = plan.bounds.empty() ? 0 : plan.bounds.back();
  parallel_for(rows, kRows, [&](std::int64_t from, std::int64_t to) {
    // The end of the sequence that holds the first row.
    auto end = std::upper_bound(plan.bounds.begin(), plan.bounds.end(), from);
    for (std::int64_t row = from; row < to; ++row) {
      while (*end <= row) ++end;
      body(row, std::max(row - before, *(end - 1)), std::min(row + after + 1, *end));
    }
  });
}

}  // namespace

template <class T>
void local_mixing(const LocalMixingPlan& plan, const T* weights, const T* values, T* output) {
  const std::int64_t taps = plan.taps, width = plan.width;
  over_neighbours(plan, taps - 1 - plan.ahead, plan.ahead, [&](std::int64_t t, std::int64_t first, std::int64_t end) {
    for (std::int64_t h = t * plan.heads; h < (t + 1) * plan.heads; ++h) {
      T* out = output + h * width;
      std::fill_n(out, width, T{0});
      for (std::int64_t j = first; j < end; ++j) {
        axpy(out, weights[h * taps + t + plan.ahead - j], values + j * width, width);
      }
    }
  });
}

template <class T>
void local_mixing_weights_gradient(const LocalMixingPlan& plan, const T* values, const T* gradient_output,
                                   T* gradient_weights) {
  const std::int64_t taps = plan.taps, width = plan.width;
  over_neighbours(plan, taps - 1 - plan.ahead, plan.ahead, [&](std::int64_t t, std::int64_t first, std::int64_t end) {
    std::fill_n(gradient_weights + t * plan.heads * taps, plan.heads * taps, T{0});
    for (std::int64_t h = t * plan.heads; h < (t + 1) * plan.heads; ++h) {
      for (std::int64_t j = first; j < end; ++j) {
        gradient_weights[h * taps + t + plan.ahead - j] = dot(gradient_output + h * width, values + j * width, width);
      }
    }
  });
}

template <class T>
void local_mixing_values_gradient(const LocalMixingPlan& plan, const T* weights, const T* gradient_output,
                                  T* gradient_values) {
  const std::int64_t taps = plan.taps, width = plan.width;
  // Row j is seen by rows j - ahead ... j - ahead + taps - 1.
  over_neighbours(plan, plan.ahead, taps - 1 - plan.ahead, [&](std::int64_t j, std::int64_t first, std::int64_t end) {
    T* out = gradient_values + j * width;
    std::fill_n(out, width, T{0});
    for (std::int64_t t = first; t < end; ++t) {
      for (std::int64_t h = t * plan.heads; h < (t + 1) * plan.heads; ++h) {
        axpy(out, weights[h * taps + t + plan.ahead - j], gradient_output + h * width, width);
      }
    }
  });
}

#define TALLY_INSTANTIATE(T)                                                                   \
  template void local_mixing(const LocalMixingPlan&, const T*, const T*, T*);                  \
  template void local_mixing_weights_gradient(const LocalMixingPlan&, const T*, const T*, T*); \
  template void local_mixing_values_gradient(const LocalMixingPlan&, const T*, const T*, T*);
TALLY_INSTANTIATE(float)
TALLY_INSTANTIATE(double)
#undef TALLY_INSTANTIATE

}  // namespace tally::kernels
