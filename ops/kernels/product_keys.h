#pragma once

#include <cstdint>

namespace tally::kernels {

/// One call of product_keys(). Letters are those of ops/memory/product_keys.h; all arrays are dense.
struct ProductKeyPlan {
  std::int64_t rows = 0, heads = 1, keys = 0, width = 0, chosen = 0;  ///< T, heads, n, w, k
};

/// scores and slots [T, heads, k]. Parallel over blocks of rows.
template <class T>
void choose_product_keys(const ProductKeyPlan& plan, const T* queries, const T* keys, T* scores, std::int64_t* slots);

/// Gradients of queries and keys (each may be null) from that of scores. Parallel over blocks of rows, and over tables
/// of keys.
template <class T>
void product_keys_backward(const ProductKeyPlan& plan, const T* queries, const T* keys, const std::int64_t* slots,
                           const T* gradient_scores, T* gradient_queries, T* gradient_keys);

}  // namespace tally::kernels
