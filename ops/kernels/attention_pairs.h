#pragma once

#include <algorithm>
#include <cstdint>

#include "tally/core/blas.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/attention_tiling.h"

// Backward of attentions without a matrix of scores: which blocks of queries and keys meet, and the products around
// what a method does to a tile.

namespace tally::kernels::tiling {

/// All pairs of blocks of a sequence that see each other, step by step: within a step no block of keys and no block of
/// queries occurs twice. Calls run_step(count, pair_at) for each; pair_at(head, i) gives pair i below count.
template <class RunStep>
void for_each_step(const AttentionPlan& plan, std::int64_t length, RunStep&& run_step) {
  const std::int64_t block = block_rows(length), blocks = block_count(length, block);
  // The nearest rows of blocks that are s blocks apart are (s - 1) block + 1 apart.
  const auto within = [&](std::int64_t apart) { return plan.window <= 0 || (apart - 1) * block + 1 < plan.window; };
  for (std::int64_t step = 0; step < blocks; ++step) {
    const bool ahead = within(step), behind = !plan.causal && within(blocks - step);
    // Queries after their keys, then (bidirectional) those that wrapped around to before them.
    const std::int64_t begin = ahead ? 0 : blocks - step, end = behind ? blocks : blocks - step;
    if (begin >= end) continue;
    run_step(end - begin, [&](const Head& at, std::int64_t i) {
      const std::int64_t key = (begin + i) * block, query = (begin + i + step) % blocks * block;
      return Pair{at, query, std::min(block, length - query), key, std::min(block, length - key), step == 0, step == 0};
    });
  }
}

/// Columns of the buffers of over_pairs().
inline std::int64_t most_paired_keys(std::int64_t longest) {
  return std::min(longest, std::max(kPairedKeys, block_limit(longest)));
}

/// Sets the gradients of a head's keys and values to zero.
template <class T>
void clear_key_gradients(const AttentionPlan& plan, const AttentionBackward<T>& data, const Head& at) {
  const auto clear = [&](T* gradient, std::int64_t width) {
    if (gradient == nullptr) return;
    T* row = gradient + (at.row * plan.heads + at.head) * width;
    for (std::int64_t i = 0; i < at.length; ++i, row += plan.heads * width) std::fill_n(row, width, T{0});
  };
  clear(data.gradient_k, plan.width);
  clear(data.gradient_v, plan.value_width);
}

/// Calls body(pair, buffers) for all blocks of queries and of keys that see each other, in parallel where they touch
/// different rows: the order of every sum is fixed. make(longest) gives the buffers of a task.
template <class T, class Make, class Body>
void over_pairs(const AttentionPlan& plan, const AttentionBackward<T>& data, Make&& make, Body&& body) {
  const Schedule schedule(plan);
  schedule.over_blocks(make, [&](const Head& at, auto& buffers) {
    // One task has all rows to itself: the fewer and wider the tiles, the better.
    clear_key_gradients(plan, data, at);
    keep(buffers.keys, data.k, at, plan.width);
    if (data.gradient_q != nullptr || data.gradient_k != nullptr) keep(buffers.values, data.v, at, plan.value_width);
    const std::int64_t block = block_rows(at.length);
    for (std::int64_t begin = 0; begin < at.length; begin += block) {
      for_each_key_tile(plan, at, begin, std::min(begin + block, at.length), kPairedKeys,
                        [&](const Pair& pair) { body(pair, buffers); });
    }
  });
  schedule.over_long([&](std::int64_t row, std::int64_t length) {
    for_each_step(plan, length, [&](std::int64_t count, auto&& pair_at) {
      parallel_for(plan.heads * count, 1, [&](std::int64_t task, std::int64_t) {
        auto buffers = make(length);
        body(pair_at(Head{row, length, task / count}, task % count), buffers);
      });
    });
  });
}

/// The matrix products of backward around what a method does to a tile. tiles.data holds scores, and tiles.second the
/// gradients of weights, when those of queries or keys are wanted, both only where visible; change(scores, products)
/// makes weights of the one and of the other (null when not wanted) the gradients of scores, which `scale` then
/// multiplies; zeros elsewhere.
template <class T, class Change>
void backward_tile(const AttentionPlan& plan, const AttentionBackward<T>& data, const Pair& pair, T scale,
                   Tiles<T>& tiles, Change&& change) {
  const std::int64_t width = plan.width, value_width = plan.value_width, head = pair.at.head;
  const std::int64_t stride = plan.heads * width, value_stride = plan.heads * value_width, tile_stride = tiles.stride;
  const std::int64_t query_row = pair.at.row + pair.query, key_row = pair.at.row + pair.first;
  const T* queries = data.q.data + query_row * data.q.stride + head * width;
  const T* keys = data.k.data + key_row * data.k.stride + head * width;
  const T* gradient = data.gradient_output + query_row * value_stride + head * value_width;
  T* products = data.gradient_q == nullptr && data.gradient_k == nullptr ? nullptr : tiles.second;
  const T beta_keys = pair.set_keys ? T{0} : T{1}, beta_queries = pair.set_queries ? T{0} : T{1};
  const TileBand visible = band_of(plan, pair.query, pair.first), visible_to_keys = blas::transposed(visible);
  using blas::Transpose;

  multiply_rows(pair, visible, static_cast<T>(plan.scale), queries, data.q.stride, tiles.keys, data.k, width,
                tiles.data, tile_stride);
  if (products != nullptr) {
    multiply_rows(pair, visible, T{1}, gradient, value_stride, tiles.values, data.v, value_width, products,
                  tile_stride);
  }
  change(tiles.data, products);
  if (data.gradient_v != nullptr) {
    blas::left_band_gemm(visible_to_keys, Transpose::yes, Transpose::no, pair.columns, value_width, pair.rows, T{1},
                         tiles.data, tile_stride, gradient, value_stride, beta_keys,
                         data.gradient_v + key_row * value_stride + head * value_width, value_stride);
  }
  if (data.gradient_k != nullptr) {
    blas::left_band_gemm(visible_to_keys, Transpose::yes, Transpose::no, pair.columns, width, pair.rows, scale,
                         products, tile_stride, queries, data.q.stride, beta_keys,
                         data.gradient_k + key_row * stride + head * width, stride);
  }
  if (data.gradient_q != nullptr) {
    blas::left_band_gemm(visible, Transpose::no, Transpose::no, pair.rows, width, pair.columns, scale, products,
                         tile_stride, keys, data.k.stride, beta_queries,
                         data.gradient_q + query_row * stride + head * width, stride);
  }
}

}  // namespace tally::kernels::tiling
