#include "tally/ops/kernels/dispatcher_sums.h"

#include "tally/core/blas.h"
#include "tally/core/kernels.h"

namespace tally::kernels {

using blas::Transpose;

namespace {

/// A projection as equal blocks: one for all heads, or one for each.
struct Blocks {
  std::int64_t count, columns, to;
  std::int64_t from, width;  ///< of a block
  std::int64_t size() const { return from * width; }
};

template <class T>
Blocks blocks_of(const ExpertProjection<T>& p) {
  const std::int64_t count = p.mixed ? 1 : p.heads, columns = p.heads * p.from, to = p.heads * p.width;
  return {count, columns, to, columns / count, to / count};
}

}  // namespace

template <class T>
void project_experts(const ExpertProjection<T>& p, std::int64_t experts, const T* x, T* out) {
  const Blocks blocks = blocks_of(p);
  for (std::int64_t b = 0; b < blocks.count; ++b) {
    blas::gemm(Transpose::no, Transpose::no, experts, blocks.width, blocks.from, T{1}, x + b * blocks.from,
               blocks.columns, p.matrix + b * blocks.size(), blocks.width, T{0}, out + b * blocks.width, blocks.to);
  }
}

template <class T>
void project_experts_backward(const ExpertProjection<T>& p, std::int64_t experts, const T* x, const T* gradient,
                              T* gradient_x, T* gradient_matrix) {
  const Blocks blocks = blocks_of(p);
  for (std::int64_t b = 0; b < blocks.count; ++b) {
    const T* gradient_out = gradient + b * blocks.width;
    blas::gemm(Transpose::no, Transpose::yes, experts, blocks.from, blocks.width, T{1}, gradient_out, blocks.to,
               p.matrix + b * blocks.size(), blocks.width, T{1}, gradient_x + b * blocks.from, blocks.columns);
    if (gradient_matrix == nullptr) continue;
    blas::gemm(Transpose::yes, Transpose::no, blocks.from, blocks.width, experts, T{1}, x + b * blocks.from,
               blocks.columns, gradient_out, blocks.to, T{1}, gradient_matrix + b * blocks.size(), blocks.width);
  }
}

template <class T>
typename DispatcherSums<T>::Sum DispatcherSums<T>::make(T* to, std::int64_t size) const {
  return {to, size, to == nullptr ? Scratch<T>() : Scratch<T>::zeros(slots_ * size)};
}

template <class T>
DispatcherSums<T>::DispatcherSums(const DispatcherPlan<T>& plan, const DispatcherGradient<T>& to, std::int64_t slots)
    : slots_(slots),
      expert_queries_(make(plan.shared ? to.expert_queries : nullptr, plan.expert_query_size())),
      key_projection_(make(to.key_projection, plan.key_projection_size())),
      value_projection_(make(to.value_projection, plan.value_projection_size())) {}

template <class T>
void DispatcherSums<T>::fold() {
  for (Sum* sum : {&expert_queries_, &key_projection_, &value_projection_}) {
    if (sum->to == nullptr) continue;
    std::fill_n(sum->to, sum->size, T{0});
    for (std::int64_t slot = 0; slot < slots_; ++slot) add_into(sum->to, sum->at(slot), sum->size);
  }
}

template void project_experts(const ExpertProjection<float>&, std::int64_t, const float*, float*);
template void project_experts(const ExpertProjection<double>&, std::int64_t, const double*, double*);
template void project_experts_backward(const ExpertProjection<float>&, std::int64_t, const float*, const float*, float*,
                                       float*);
template void project_experts_backward(const ExpertProjection<double>&, std::int64_t, const double*, const double*,
                                       double*, double*);
template class DispatcherSums<float>;
template class DispatcherSums<double>;

}  // namespace tally::kernels
