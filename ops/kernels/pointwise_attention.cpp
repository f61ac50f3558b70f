#include "tally/ops/kernels/pointwise_attention.h"

#include <algorithm>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/attention_pairs.h"
#include "tally/ops/kernels/attention_tiling.h"
#include "tally/ops/kernels/elementwise.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {
namespace {

using blas::Transpose;
using tiling::Head;
using tiling::Pair;
using tiling::Tiles;

/// 1 / n of the row at this place of a sequence.
double weight_of(const AttentionPlan& plan, double normalizer, std::int64_t place, std::int64_t length) {
  if (normalizer != 0) return 1 / normalizer;
  return 1 / static_cast<double>(plan.causal ? place + 1 : length);
}

/// Calls body(row, begin, end) for the visible columns of each row of a tile, the others set to 0.
template <class T, class Body>
void over_visible(const AttentionPlan& plan, const Pair& pair, std::int64_t stride, T* tile, Body&& body) {
  const TileBand band = tiling::band_of(plan, pair.query, pair.first);
  for (std::int64_t r = 0; r < pair.rows; ++r) {
    const std::int64_t end = std::clamp<std::int64_t>(band.end + r, 0, pair.columns);
    body(r * stride, end);
    std::fill(tile + r * stride + end, tile + r * stride + pair.columns, T{0});
  }
}

}  // namespace

template <class T>
void pointwise_attention_forward(const AttentionPlan& plan, double normalizer, MatrixRows<const T> q,
                                 MatrixRows<const T> k, MatrixRows<const T> v, T* output) {
  const std::int64_t stride = plan.heads * plan.value_width;
  const auto buffers = [&](std::int64_t longest) {
    return Tiles<T>(tiling::block_limit(longest), tiling::most_keys(plan, longest), 1);
  };
  tiling::over_query_blocks(
      plan, k, buffers, [&](const Head& at, std::int64_t begin, std::int64_t end, Tiles<T>& tiles) {
        const std::int64_t rows = end - begin;
        const T* queries = q.data + (at.row + begin) * q.stride + at.head * plan.width;
        T* out = output + (at.row + begin) * stride + at.head * plan.value_width;
        tiling::for_each_key_tile(plan, at, begin, end, tiling::key_tile(plan, at.length), [&](const Pair& pair) {
          const T* values = v.data + (at.row + pair.first) * v.stride + at.head * plan.value_width;
          const TileBand visible = tiling::band_of(plan, begin, pair.first);
          tiling::multiply_rows(pair, visible, static_cast<T>(plan.scale), queries, q.stride, tiles.keys, k, plan.width,
                                tiles.data, tiles.stride);
          over_visible(plan, pair, tiles.stride, tiles.data, [&](std::int64_t row, std::int64_t count) {
            unary(UnaryOp::silu, tiles.data + row, tiles.data + row, count);
          });
          blas::left_band_gemm(visible, Transpose::no, Transpose::no, rows, plan.value_width, pair.columns, T{1},
                               tiles.data, tiles.stride, values, v.stride, pair.set_queries ? T{0} : T{1}, out, stride);
        });
        for (std::int64_t r = 0; r < rows; ++r) {
          const double weight = weight_of(plan, normalizer, begin + r, at.length);
          scale(out + r * stride, static_cast<T>(weight), plan.value_width);
        }
      });
}

template <class T>
void pointwise_attention_backward(const AttentionPlan& plan, double normalizer, const AttentionBackward<T>& data) {
  // The gradients of what a row was before it was divided.
  const std::int64_t rows = plan.bounds.back(), width = plan.heads * plan.value_width;
  Scratch<T> divided(rows * width);
  parallel_for(static_cast<std::int64_t>(plan.bounds.size()) - 1, 1, [&](std::int64_t sequence, std::int64_t) {
    const std::int64_t begin = plan.bounds[static_cast<std::size_t>(sequence)],
                       end = plan.bounds[static_cast<std::size_t>(sequence + 1)];
    for (std::int64_t row = begin; row < end; ++row) {
      std::copy_n(data.gradient_output + row * width, width, divided.data() + row * width);
      const double weight = weight_of(plan, normalizer, row - begin, end - begin);
      scale(divided.data() + row * width, static_cast<T>(weight), width);
    }
  });
  AttentionBackward<T> undivided = data;
  undivided.gradient_output = divided.data();
  const auto buffers = [&](std::int64_t longest) {
    return Tiles<T>(tiling::block_limit(longest), tiling::most_paired_keys(longest), 2);
  };
  tiling::over_pairs(plan, data, buffers, [&](const Pair& pair, Tiles<T>& tiles) {
    tiling::backward_tile(plan, undivided, pair, static_cast<T>(plan.scale), tiles, [&](T* scores, T* products) {
      if (products != nullptr) {
        over_visible(plan, pair, tiles.stride, products, [&](std::int64_t row, std::int64_t count) {
          unary_backward(UnaryOp::silu, products + row, scores + row, products + row, count);
        });
      }
      over_visible(plan, pair, tiles.stride, scores, [&](std::int64_t row, std::int64_t count) {
        unary(UnaryOp::silu, scores + row, scores + row, count);
      });
    });
  });
}

#define TALLY_INSTANTIATE(T)                                                                                        \
  template void pointwise_attention_forward(const AttentionPlan&, double, MatrixRows<const T>, MatrixRows<const T>, \
                                            MatrixRows<const T>, T*);                                               \
  template void pointwise_attention_backward(const AttentionPlan&, double, const AttentionBackward<T>&);
TALLY_INSTANTIATE(float)
TALLY_INSTANTIATE(double)
#undef TALLY_INSTANTIATE

}  // namespace tally::kernels
