#include "tally/ops/kernels/softmax_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/core/tensor.h"
#include "tally/ops/kernels/attention_pairs.h"
#include "tally/ops/kernels/attention_tile.h"
#include "tally/ops/kernels/attention_tiling.h"

namespace tally::kernels {
namespace {

using blas::Transpose;
using tiling::band_of;
using tiling::block_limit;
using tiling::Head;
using tiling::round_up;

/// Buffers of one task.
template <class T>
struct Scratch : tiling::Tiles<T> {
  Scratch(const AttentionPlan& plan, std::int64_t rows, std::int64_t columns, int tiles)
      : tiling::Tiles<T>(rows, columns, tiles) {
    if (plan.dropout) bits.resize(static_cast<std::size_t>(rows * this->stride));
  }
  std::vector<MaskBits> bits;
};

/// Draws the bits of the visible part of a tile.
template <class T>
TileDropout draw_dropout(const AttentionPlan& plan, RngKey key, const Head& at, std::int64_t query, std::int64_t rows,
                         std::int64_t first_key, std::int64_t columns, TileBand band, Scratch<T>& scratch) {
  if (!plan.dropout) return {};
  const std::int64_t first = std::clamp<std::int64_t>(band.first, 0, columns) / kMaskDraw * kMaskDraw;
  const std::int64_t end = std::clamp<std::int64_t>(band.end + rows - 1, first, columns);
  random_bits(key, plan.first_row + static_cast<std::uint64_t>(at.row + query), rows,
              static_cast<std::uint64_t>(first_key + first), end - first, scratch.bits.data() + first, scratch.stride);
  return {scratch.bits.data(), plan.dropout->threshold, plan.dropout->scale};
}

RngKey key_of(const AttentionPlan& plan, std::int64_t head) {
  return plan.dropout ? plan.dropout->key.fold_in(static_cast<std::uint64_t>(head)) : RngKey{};
}

template <class T>
struct Forward {
  const AttentionPlan& plan;
  MatrixRows<const T> q, k, v;
  T* output;
  double* log_sum_exp;

  /// Queries [begin, end) of one head of one sequence.
  void queries(const Head& at, std::int64_t begin, std::int64_t end, Scratch<T>& scratch) const {
    const std::int64_t rows = end - begin, output_stride = plan.heads * plan.value_width;
    const RngKey key = key_of(plan, at.head);
    const T* query = q.data + (at.row + begin) * q.stride + at.head * plan.width;
    T* out = output + (at.row + begin) * output_stride + at.head * plan.value_width;
    T maximum[tiling::kRowRoom], factor[tiling::kRowRoom];
    double sum[tiling::kRowRoom];
    static_assert(tiling::kRowRoom % kTileAlignment == 0 && tiling::kRowRoom >= tiling::kLongBlock);
    std::fill_n(maximum, round_up(rows, kTileAlignment), -std::numeric_limits<T>::infinity());
    std::fill_n(sum, rows, 0.0);

    const auto key_tile = [&](const tiling::Pair& pair) {
      const std::int64_t first = pair.first, columns = pair.columns;
      const T* values = v.data + (at.row + first) * v.stride + at.head * plan.value_width;
      const TileBand band = band_of(plan, begin, first);
      tiling::multiply_rows(pair, band, static_cast<T>(plan.scale), query, q.stride, scratch.keys, k, plan.width,
                            scratch.data, scratch.stride);
      const TileDropout dropout = draw_dropout(plan, key, at, begin, rows, first, columns, band, scratch);
      const bool rescale =
          softmax_tile(scratch.data, scratch.stride, rows, columns, band, dropout, maximum, sum, factor);
      if (!pair.set_queries && rescale) scale_rows(out, output_stride, rows, plan.value_width, factor);
      blas::left_band_gemm(band, Transpose::no, Transpose::no, rows, plan.value_width, columns, T{1}, scratch.data,
                           scratch.stride, values, v.stride, pair.set_queries ? T{0} : T{1}, out, output_stride);
    };
    tiling::for_each_key_tile(plan, at, begin, end, tiling::key_tile(plan, at.length), key_tile);
    for (std::int64_t r = 0; r < rows; ++r) {
      factor[r] = static_cast<T>(1 / sum[r]);
      log_sum_exp[(at.row + begin + r) * plan.heads + at.head] = static_cast<double>(maximum[r]) + std::log(sum[r]);
    }
    scale_rows(out, output_stride, rows, plan.value_width, factor);
  }

  void run() const {
    tiling::over_query_blocks(
        plan, k,
        [&](std::int64_t longest) {
          return Scratch<T>(plan, block_limit(longest), tiling::most_keys(plan, longest), 1);
        },
        [&](const Head& at, std::int64_t begin, std::int64_t end, Scratch<T>& buffers) {
          queries(at, begin, end, buffers);
        });
  }
};

template <class T>
struct Backward {
  const AttentionPlan& plan;
  const AttentionBackward<T>& data;
  const T* delta;  ///< [T, heads], inner products of an output's and its gradient's rows; null when not needed

  void run() const {
    tiling::over_pairs(
        plan, data,
        [&](std::int64_t longest) {
          return Scratch<T>(plan, block_limit(longest), tiling::most_paired_keys(longest), delta == nullptr ? 1 : 2);
        },
        [&](const tiling::Pair& pair, Scratch<T>& buffers) {
          const std::int64_t place = (pair.at.row + pair.query) * plan.heads + pair.at.head;
          tiling::backward_tile(plan, data, pair, T{1}, buffers, [&](T* scores, T* products) {
            const TileBand band = band_of(plan, pair.query, pair.first);
            const TileDropout dropout = draw_dropout(plan, key_of(plan, pair.at.head), pair.at, pair.query, pair.rows,
                                                     pair.first, pair.columns, band, buffers);
            softmax_tile_backward(scores, products, buffers.stride, pair.rows, pair.columns, band, dropout,
                                  data.log_sum_exp + place, delta == nullptr ? nullptr : delta + place, plan.heads,
                                  static_cast<T>(plan.scale));
          });
        });
  }
};

}  // namespace

template <class T>
void attention_forward(const AttentionPlan& plan, MatrixRows<const T> q, MatrixRows<const T> k, MatrixRows<const T> v,
                       T* output, double* log_sum_exp) {
  Forward<T>{plan, q, k, v, output, log_sum_exp}.run();
}

template <class T>
void attention_backward(const AttentionPlan& plan, const AttentionBackward<T>& data) {
  if (data.gradient_q == nullptr && data.gradient_k == nullptr) {
    Backward<T>{plan, data, nullptr}.run();
    return;
  }
  const std::int64_t pairs = plan.bounds.back() * plan.heads, width = plan.value_width;
  Tensor delta({pairs}, dtype_of<T>);
  T* out = delta.template mutable_data<T>();
  // The row of an output's head is one stretch of memory, and so are those of its gradient.
  parallel_for(pairs, 1024, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      out[i] = dot(data.output + i * width, data.gradient_output + i * width, width);
  });
  Backward<T>{plan, data, out}.run();
}

template void attention_forward(const AttentionPlan&, MatrixRows<const float>, MatrixRows<const float>,
                                MatrixRows<const float>, float*, double*);
template void attention_forward(const AttentionPlan&, MatrixRows<const double>, MatrixRows<const double>,
                                MatrixRows<const double>, double*, double*);
template void attention_backward(const AttentionPlan&, const AttentionBackward<float>&);
template void attention_backward(const AttentionPlan&, const AttentionBackward<double>&);

}  // namespace tally::kernels
