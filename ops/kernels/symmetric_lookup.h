#pragma once

#include <cstdint>
#include <span>

#include "tally/ops/kernels/softmax_attention.h"

namespace tally::kernels {

/// Lookups in packed symmetric matrices. Rows of `packed` are those of documents.
template <class T>
struct SymmetricLookupPlan {
  std::span<const std::int64_t> bounds;  ///< queries of document d are rows [bounds[d], bounds[d + 1])
  std::int64_t width = 0;
  MatrixRows<const T> packed;
};

/// output [M, width], dense: each query by its document's matrix. Parallel over blocks of a document's queries.
template <class T>
void symmetric_products(const SymmetricLookupPlan<T>& plan, MatrixRows<const T> queries, T* output);

/// gradient [N, packed], dense: that of both places of an element, from the gradients of output rows, dense. Products
/// of many queries are added in double. Parallel over segments of a document's queries.
template <class T>
void symmetric_lookup_gradient(const SymmetricLookupPlan<T>& plan, MatrixRows<const T> queries,
                               const T* gradient_output, T* gradient);

}  // namespace tally::kernels
