#include "tally/ops/kernels/embedding_bag.h"

#include <algorithm>

#include "tally/core/kernels.h"
#include "tally/core/parallel.h"

namespace tally::kernels {
namespace {

constexpr std::int64_t kBagElements = 1 << 14;  // of one task

std::int64_t bags_of_task(const BagPlan& plan) {
  return std::max<std::int64_t>(kBagElements / std::max<std::int64_t>(plan.size * plan.width, 1), 1);
}

}  // namespace

template <class T>
void sum_bags(const BagPlan& plan, const T* table, const std::int64_t* indices, const T* weights, T* out) {
  parallel_for(plan.bags, bags_of_task(plan), [&](std::int64_t begin, std::int64_t end) {
    std::fill(out + begin * plan.width, out + end * plan.width, T{0});
    for (std::int64_t p = begin * plan.size; p < end * plan.size; ++p)
      axpy(out + p / plan.size * plan.width, weights[p], table + indices[p] * plan.width, plan.width);
  });
}

template <class T>
void bag_weights_backward(const BagPlan& plan, const T* table, const std::int64_t* indices, const T* gradient,
                          T* gradient_weights) {
  parallel_for(plan.bags, bags_of_task(plan), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin * plan.size; p < end * plan.size; ++p) {
      gradient_weights[p] = dot(gradient + p / plan.size * plan.width, table + indices[p] * plan.width, plan.width);
    }
  });
}

template <class T>
void bag_rows_backward(const BagPlan& plan, const T* weights, const T* gradient, const std::int64_t* order,
                       const std::int64_t* first, std::int64_t rows, T* out) {
  const std::int64_t grain = std::max<std::int64_t>(kBagElements / std::max<std::int64_t>(plan.width, 1), 1);
  parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
    std::fill(out + begin * plan.width, out + end * plan.width, T{0});
    for (std::int64_t u = begin; u < end; ++u) {
      for (std::int64_t i = first[u]; i < first[u + 1]; ++i) {
        const std::int64_t p = order[i];
        axpy(out + u * plan.width, weights[p], gradient + p / plan.size * plan.width, plan.width);
      }
    }
  });
}

template void sum_bags(const BagPlan&, const float*, const std::int64_t*, const float*, float*);
template void sum_bags(const BagPlan&, const double*, const std::int64_t*, const double*, double*);
template void bag_weights_backward(const BagPlan&, const float*, const std::int64_t*, const float*, float*);
template void bag_weights_backward(const BagPlan&, const double*, const std::int64_t*, const double*, double*);
template void bag_rows_backward(const BagPlan&, const float*, const float*, const std::int64_t*, const std::int64_t*,
                                std::int64_t, float*);
template void bag_rows_backward(const BagPlan&, const double*, const double*, const std::int64_t*, const std::int64_t*,
                                std::int64_t, double*);

}  // namespace tally::kernels
