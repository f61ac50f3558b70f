#pragma once

#include <cstdint>
#include <span>

#include "tally/ops/kernels/softmax_attention.h"

namespace tally::kernels {

/// One call of a dispatcher attention. Letters are those of ops/attention/dispatcher_attention.h.
template <class T>
struct DispatcherPlan {
  std::span<const std::int64_t> bounds;  ///< sequence i occupies rows [bounds[i], bounds[i + 1])
  std::int64_t heads = 1;
  std::int64_t experts = 0;                                                        ///< k
  std::int64_t key_width = 0, value_width = 0, query_width = 0, output_width = 0;  ///< d, e, r, o: of a head
  double gather_scale = 1, read_scale = 1;
  bool shared = true;                 ///< experts are those of all sequences
  bool mixed_keys = true;             ///< key_projection is one matrix, else one for each head
  bool mixed_values = true;           ///< value_projection likewise
  const T* expert_queries = nullptr;  ///< dense
  MatrixRows<const T> keys, values, queries;
  const T *key_projection = nullptr, *value_projection = nullptr;

  std::int64_t sequences() const { return static_cast<std::int64_t>(bounds.size()) - 1; }
  std::int64_t expert_query_size() const { return experts * heads * key_width; }
  std::int64_t expert_size() const { return experts * heads * value_width; }
  std::int64_t key_projection_size() const { return heads * value_width * query_width * (mixed_keys ? heads : 1); }
  std::int64_t value_projection_size() const { return heads * value_width * output_width * (mixed_values ? heads : 1); }
};

/// Where gradients go, dense and in the shapes of the inputs; each may be null.
template <class T>
struct DispatcherGradient {
  T *expert_queries = nullptr, *keys = nullptr, *values = nullptr, *queries = nullptr;
  T *key_projection = nullptr, *value_projection = nullptr;
};

/// A projection of experts: one matrix [heads * e, heads * width], or one [e, width] for each head.
template <class T>
struct ExpertProjection {
  const T* matrix = nullptr;
  std::int64_t heads = 1, from = 0, width = 0;
  bool mixed = true;

  /// Heads that head h reads.
  std::int64_t first(std::int64_t h) const { return mixed ? 0 : h; }
  std::int64_t end(std::int64_t h) const { return mixed ? heads : h + 1; }
  /// What head h makes of the columns of head `source`: [from, width], rows `stride()` apart.
  std::int64_t offset(std::int64_t source, std::int64_t h) const {
    return mixed ? source * from * stride() + h * width : h * from * width;
  }
  std::int64_t stride() const { return mixed ? heads * width : width; }
};

template <class T>
ExpertProjection<T> key_projection(const DispatcherPlan<T>& plan) {
  return {plan.key_projection, plan.heads, plan.value_width, plan.query_width, plan.mixed_keys};
}
template <class T>
ExpertProjection<T> value_projection(const DispatcherPlan<T>& plan) {
  return {plan.value_projection, plan.heads, plan.value_width, plan.output_width, plan.mixed_values};
}

}  // namespace tally::kernels
