#pragma once

#include <cstdint>

// Cross-entropy of one row of logits. T is float or double. On the calling thread.

namespace tally::kernels {

/// -log softmax(x)[target] of n logits, its logarithm in double. `scratch` holds n.
template <class T>
double cross_entropy_row(const T* x, std::int64_t n, std::int64_t target, T* scratch);

/// gx = g (softmax(x) - e_target).
template <class T>
void cross_entropy_row_gradient(T g, const T* x, std::int64_t n, std::int64_t target, T* gx);

}  // namespace tally::kernels
