#include "tally/ops/kernels/cross_entropy.h"

#include <cmath>

#include "tally/core/kernels.h"
#include "tally/ops/kernels/reduce.h"

namespace tally::kernels {

template <class T>
double cross_entropy_row(const T* x, std::int64_t n, std::int64_t target, T* scratch) {
  const T largest = max_value(x, n);
  const double total = exp_and_sum(scratch, x, T{1}, largest, n);
  return std::log(total) - (static_cast<double>(x[target]) - static_cast<double>(largest));
}

template <class T>
void cross_entropy_row_gradient(T g, const T* x, std::int64_t n, std::int64_t target, T* gx) {
  log_sum_exp_backward(g, x, gx, n);
  gx[target] -= g;
}

template double cross_entropy_row(const float*, std::int64_t, std::int64_t, float*);
template double cross_entropy_row(const double*, std::int64_t, std::int64_t, double*);
template void cross_entropy_row_gradient(float, const float*, std::int64_t, std::int64_t, float*);
template void cross_entropy_row_gradient(double, const double*, std::int64_t, std::int64_t, double*);

}  // namespace tally::kernels
