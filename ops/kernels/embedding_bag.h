#pragma once

#include <cstdint>

namespace tally::kernels {

/// One call of embedding_bag().
struct BagPlan {
  std::int64_t bags = 0, size = 0, width = 0;  ///< T, m, D
};

/// out[t] = sum_j weights[t, j] table[indices[t, j]].
template <class T>
void sum_bags(const BagPlan& plan, const T* table, const std::int64_t* indices, const T* weights, T* out);

/// gradient_weights[t, j] = <gradient[t], table[indices[t, j]]>.
template <class T>
void bag_weights_backward(const BagPlan& plan, const T* table, const std::int64_t* indices, const T* gradient,
                          T* gradient_weights);

/// out[u] = the sum of weights[p] gradient[p / m] over places p = order[first[u]] ... order[first[u + 1] - 1].
template <class T>
void bag_rows_backward(const BagPlan& plan, const T* weights, const T* gradient, const std::int64_t* order,
                       const std::int64_t* first, std::int64_t rows, T* out);

}  // namespace tally::kernels
