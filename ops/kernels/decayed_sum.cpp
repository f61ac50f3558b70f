#include "tally/ops/kernels/decayed_sum.h"

#include <algorithm>
#include <array>
#include <functional>

#include "tally/core/parallel.h"

namespace tally::kernels {
namespace {

constexpr std::int64_t kColumns = 64;  // of a task: their sums stay in registers and the first cache
constexpr std::int64_t kTasks = 16;    // at a time

struct Task {
  std::int64_t begin, end;  // rows
  std::int64_t column, columns;
};

class Tasks {
 public:
  Tasks(std::span<const std::int64_t> bounds, std::int64_t width)
      : bounds_(bounds), width_(width), blocks_(block_count(width, kColumns)) {}
  std::int64_t count() const { return bounds_.empty() ? 0 : static_cast<std::int64_t>(bounds_.size() - 1) * blocks_; }
  Task at(std::int64_t task) const {
    const auto sequence = static_cast<std::size_t>(task / blocks_);
    const std::int64_t column = task % blocks_ * kColumns;
    return {bounds_[sequence], bounds_[sequence + 1], column, std::min(kColumns, width_ - column)};
  }

 private:
  std::span<const std::int64_t> bounds_;
  std::int64_t width_, blocks_;
};

}  // namespace

template <class T>
void decayed_sum(std::span<const std::int64_t> bounds, std::int64_t width, double factor, bool reverse, const T* x,
                 T* y) {
  const Tasks tasks(bounds, width);
  parallel_for(tasks.count(), kTasks, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t i = from; i < to; ++i) {
      const Task task = tasks.at(i);
      std::array<double, kColumns> sums{};
      for (std::int64_t step = 0; step < task.end - task.begin; ++step) {
        const std::int64_t row = reverse ? task.end - 1 - step : task.begin + step;
        const T* in = x + row * width + task.column;
        T* out = y + row * width + task.column;
        for (std::int64_t j = 0; j < task.columns; ++j) {
          double& sum = sums[static_cast<std::size_t>(j)];
          sum = factor * sum + static_cast<double>(in[j]);
          out[j] = static_cast<T>(sum);
        }
      }
    }
  });
}

template <class T>
double decayed_sum_slope(std::span<const std::int64_t> bounds, std::int64_t width, const T* gradient, const T* y) {
  const Tasks tasks(bounds, width);
  return parallel_reduce(
      tasks.count(), kTasks, 0.0,
      [&](std::int64_t from, std::int64_t to) {
        double total = 0;
        for (std::int64_t i = from; i < to; ++i) {
          const Task task = tasks.at(i);
          for (std::int64_t row = task.begin + 1; row < task.end; ++row) {
            const T *g = gradient + row * width + task.column, *before = y + (row - 1) * width + task.column;
            for (std::int64_t j = 0; j < task.columns; ++j) {
              total += static_cast<double>(g[j]) * static_cast<double>(before[j]);
            }
          }
        }
        return total;
      },
      std::plus<>());
}

template void decayed_sum(std::span<const std::int64_t>, std::int64_t, double, bool, const float*, float*);
template void decayed_sum(std::span<const std::int64_t>, std::int64_t, double, bool, const double*, double*);
template double decayed_sum_slope(std::span<const std::int64_t>, std::int64_t, const float*, const float*);
template double decayed_sum_slope(std::span<const std::int64_t>, std::int64_t, const double*, const double*);

}  // namespace tally::kernels
