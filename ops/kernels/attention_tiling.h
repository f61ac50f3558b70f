#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "tally/core/blas.h"
#include "tally/core/right_operand.h"
#include "tally/core/tensor.h"
#include "tally/ops/kernels/attention_schedule.h"
#include "tally/ops/kernels/attention_tile.h"
#include "tally/ops/kernels/softmax_attention.h"

// What attentions without a matrix of scores do tile by tile: blocks of queries meet tiles of keys. attention_pairs.h
// has what backward adds.

namespace tally::kernels::tiling {

/// Tiles of scores of one task.
template <class T>
struct Tiles {
  Tiles(std::int64_t rows, std::int64_t columns, int count)
      : stride(round_up(columns, kTileAlignment)), scores(Shape{std::int64_t{count}, rows, stride}, dtype_of<T>) {
    data = scores.template mutable_data<T>();
    second = data + (count - 1) * rows * stride;
  }
  std::int64_t stride;
  Tensor scores;
  T* data;    ///< [block, stride]
  T* second;  ///< another one, when there are two tiles
  /// Keys and values of the head at work, transposed, as the right operands of its products: packed once where a task
  /// has all blocks of a head to itself. Else nothing.
  std::optional<blas::RightOperand<T>> keys, values;
};

/// Rows of one head of one sequence.
template <class T>
T* rows_of(MatrixRows<T> matrix, const Head& at, std::int64_t width) {
  return matrix.data + at.row * matrix.stride + at.head * width;
}

/// Packs the rows of a head for products of its blocks with them.
template <class T>
void keep(std::optional<blas::RightOperand<T>>& kept, MatrixRows<const T> matrix, const Head& at, std::int64_t width) {
  if (matrix.data == nullptr) return;
  kept.emplace(blas::Transpose::yes, width, at.length, rows_of(matrix, at, width), matrix.stride,
               block_limit(at.length));
}

/// Keys visible to row r of a tile whose first query is `query` and first key is `key`, both counted from the
/// sequence's start.
inline TileBand band_of(const AttentionPlan& plan, std::int64_t query, std::int64_t key) {
  TileBand band;
  if (plan.window > 0) band.first = query - plan.window + 1 - key;
  if (plan.causal) {
    band.end = query + 1 - key;
  } else if (plan.window > 0) {
    band.end = query + plan.window - key;
  }
  return band;
}

/// Keys of a tile of the forward pass over a sequence of this length, at most.
inline std::int64_t key_tile(const AttentionPlan& plan, std::int64_t length) {
  const std::int64_t block = length > kLongSequence ? kLongBlock : kBlock;
  const std::int64_t width = std::max(plan.width, plan.value_width);
  return std::clamp<std::int64_t>(kProductLimit / (block * width) / 16 * 16, kLongBlock, kMaxKeyTile);
}

/// Columns of the buffers of over_query_blocks(), for tiles of key_tile() keys.
inline std::int64_t most_keys(const AttentionPlan& plan, std::int64_t longest) {
  return std::min(longest, std::max(key_tile(plan, 1), key_tile(plan, longest)));
}

/// Calls body(head, begin, end, buffers) for the blocks of queries of every head of every sequence, in parallel.
/// make(longest) gives the buffers of a task.
template <class T, class Make, class Body>
void over_query_blocks(const AttentionPlan& plan, MatrixRows<const T> keys, Make&& make, Body&& body) {
  const Schedule schedule(plan);
  schedule.over_blocks(make, [&](const Head& at, auto& buffers) {
    keep(buffers.keys, keys, at, plan.width);
    const std::int64_t block = block_rows(at.length);
    for (std::int64_t begin = 0; begin < at.length; begin += block) {
      body(at, begin, std::min(begin + block, at.length), buffers);
    }
  });
  schedule.over_long([&](std::int64_t row, std::int64_t length) {
    const std::int64_t block = block_rows(length), blocks = block_count(length, block);
    parallel_for(plan.heads * blocks, 1, [&](std::int64_t task, std::int64_t) {
      auto buffers = make(length);
      const std::int64_t begin = task % blocks * block;
      body(Head{row, length, task / blocks}, begin, std::min(begin + block, length), buffers);
    });
  });
}

/// A block of queries against a block of keys of one head of one sequence.
struct Pair {
  Head at;
  std::int64_t query, rows;     ///< first query, from the sequence's start, and their number
  std::int64_t first, columns;  ///< the same of the keys
  bool set_queries, set_keys;   ///< their gradients are set, later ones are added to
};

/// Calls body(pair) for queries [begin, end) of a sequence and the keys that they see, tile by tile.
template <class Body>
void for_each_key_tile(const AttentionPlan& plan, const Head& at, std::int64_t begin, std::int64_t end,
                       std::int64_t tile, Body&& body) {
  const std::int64_t nearest =
      plan.window > 0 ? std::max<std::int64_t>(begin - plan.window + 1, 0) / kMaskDraw * kMaskDraw : 0;
  const std::int64_t farthest = plan.causal       ? end
                                : plan.window > 0 ? std::min(end + plan.window - 1, at.length)
                                                  : at.length;
  for (std::int64_t first = nearest; first < farthest; first += tile) {
    body(Pair{at, begin, end - begin, first, std::min(tile, farthest - first), first == nearest, false});
  }
}

/// out [rows, columns] = scale times the products of a pair's rows of `left` with its rows of keys or values, as far as
/// they are visible; the rest is anything.
template <class T>
void multiply_rows(const Pair& pair, TileBand visible, T scale, const T* left, std::int64_t left_stride,
                   const std::optional<blas::RightOperand<T>>& kept, MatrixRows<const T> right, std::int64_t width,
                   T* out, std::int64_t stride) {
  using blas::Transpose;
  if (kept) {
    kept->result_band(visible, pair.first, pair.columns, Transpose::no, pair.rows, scale, left, left_stride, out,
                      stride);
  } else {
    blas::result_band_gemm(visible, Transpose::no, Transpose::yes, pair.rows, pair.columns, width, scale, left,
                           left_stride, rows_of(right, pair.at, width) + pair.first * right.stride, right.stride, out,
                           stride);
  }
}

}  // namespace tally::kernels::tiling
