#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "tally/ops/kernels/softmax_attention.h"

namespace tally::kernels {

/// A table over (pair, head, query, key), the latter two counted within their sequences: `steps` elements from one to
/// the next, 0 along what it is the same for. Null data: no table.
template <class T>
struct PairTable {
  const T* data = nullptr;
  std::array<std::int64_t, 4> steps{};

  std::int64_t row(std::int64_t pair, std::int64_t head, std::int64_t query) const {
    return pair * steps[0] + head * steps[1] + query * steps[2];
  }
};

/// One call of attention of packed queries to packed keys: pair n is sequence n of both.
template <class T>
struct ScaledDotProductPlan {
  std::span<const std::int64_t> bounds, key_bounds;
  const std::int64_t* starts = nullptr;  ///< [N] where the first query stands among the keys; null: at the first key
  std::int64_t heads = 1;                ///< of queries
  std::int64_t key_heads = 1;            ///< of keys and values; divides the heads
  std::int64_t width = 0;                ///< of a query's or key's head
  std::int64_t value_width = 0;          ///< of a value's head
  double scale = 1;                      ///< of scores
  double soft_cap = 0;                   ///< 0 for none
  std::int64_t left = -1, right = -1;    ///< keys that are seen beside the query's own place; below 0: all
  MatrixRows<const T> q, k, v;
  PairTable<T> bias = {};
  PairTable<std::uint8_t> visible = {};
};

/// output [T, heads * value_width]. A tile of rows meets all its keys at once. Parallel over tiles and heads.
template <class T>
void scaled_dot_product_forward(const ScaledDotProductPlan<T>& plan, T* output);

/// The scores of every pair, one after the other, each [heads, queries, keys]: products, and after them so many of the
/// steps cap, bias (with what is not seen), softmax.
template <class T>
void scaled_dot_product_scores(const ScaledDotProductPlan<T>& plan, int steps, T* scores);

/// Dense gradients, set by the call, but that `bias`, of the places of the plan's table, is added to; null ones are not
/// computed.
template <class T>
struct ScaledDotProductGradients {
  T *q = nullptr, *k = nullptr, *v = nullptr;
  double* bias = nullptr;
};

/// Computes probabilities again. Parallel over pairs and heads of keys, as far as they do not share a gradient of the
/// bias.
template <class T>
void scaled_dot_product_backward(const ScaledDotProductPlan<T>& plan, const T* gradient_output,
                                 const ScaledDotProductGradients<T>& gradients);

}  // namespace tally::kernels
