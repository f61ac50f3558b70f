#include "tally/ops/kernels/softmax_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/core/tensor.h"
#include "tally/ops/kernels/attention_tile.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

// Tile sizes are constants of the lengths and widths, never of the machine: they decide the order of sums.
// Rows of a block, at most. Products of small blocks are nearly as fast as those of large ones and waste less of a
// causal tile; in long sequences that waste is small.
constexpr std::int64_t kBlock = 48;
constexpr std::int64_t kLongBlock = 96;
constexpr std::int64_t kRowRoom = 128;  // kLongBlock rounded up for the kernels of tiles
// A product up to this many multiplications goes through BLAS without packing, faster than a larger one.
constexpr std::int64_t kProductLimit = 1000000;
constexpr std::int64_t kMaxKeyTile = 256;
// A sequence is parallel inside when it is longer than this and its scores are more than a share of all.
constexpr std::int64_t kLongSequence = 512;
constexpr std::int64_t kLongShare = 64;
// Scores of one task over short sequences, at least.
constexpr std::int64_t kTaskScores = 1 << 14;

constexpr std::int64_t round_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

std::int64_t block_limit(std::int64_t length) { return length > kLongSequence ? kLongBlock : std::min(length, kBlock); }

/// Rows of the blocks that a sequence is cut into: nearly equal, so that little of a causal tile is wasted. A multiple
/// of 4, the draws of one random counter, unless there is one block.
std::int64_t block_rows(std::int64_t length) {
  const std::int64_t blocks = block_count(length, block_limit(length));
  return blocks <= 1 ? std::max<std::int64_t>(length, 1) : round_up(block_count(length, blocks), 4);
}

/// Buffers of one task.
template <class T>
struct Scratch {
  Scratch(const AttentionPlan& plan, std::int64_t rows, std::int64_t columns, int tiles)
      : stride(round_up(columns, kTileAlignment)), scores(Shape{std::int64_t{tiles}, rows, stride}, dtype_of<T>) {
    if (plan.dropout) bits.resize(static_cast<std::size_t>(rows * stride));
    data = scores.template mutable_data<T>();
    second = data + (tiles - 1) * rows * stride;
  }
  std::int64_t stride;
  Tensor scores;
  T* data;    ///< [block, stride]
  T* second;  ///< another one, when there are two tiles
  std::vector<std::uint32_t> bits;
};

/// One head of one sequence.
struct Head {
  std::int64_t row, length, head;
};

/// Keys visible to row r of a tile whose first query is `query` and first key is `key`, both counted from the
/// sequence's start.
TileBand band_of(const AttentionPlan& plan, std::int64_t query, std::int64_t key) {
  constexpr std::int64_t kUnlimited = std::int64_t{1} << 40;
  TileBand band;
  band.first = plan.window > 0 ? query - plan.window + 1 - key : -kUnlimited;
  band.end = plan.causal ? query + 1 - key : plan.window > 0 ? query + plan.window - key : kUnlimited;
  return band;
}

/// Draws the bits of the visible part of a tile.
template <class T>
TileDropout draw_dropout(const AttentionPlan& plan, RngKey key, const Head& at, std::int64_t query, std::int64_t rows,
                         std::int64_t first_key, std::int64_t columns, TileBand band, Scratch<T>& scratch) {
  if (!plan.dropout) return {};
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t first = std::clamp<std::int64_t>(band.first + r, 0, columns) / 4 * 4;
    const std::int64_t end = std::clamp<std::int64_t>(band.end + r, first, columns);
    random_bits(key, plan.first_row + static_cast<std::uint64_t>(at.row + query + r),
                static_cast<std::uint64_t>(first_key + first), round_up(end - first, 4),
                scratch.bits.data() + r * scratch.stride + first);
  }
  return {scratch.bits.data(), plan.dropout->threshold, plan.dropout->scale};
}

RngKey key_of(const AttentionPlan& plan, std::int64_t head) {
  return plan.dropout ? plan.dropout->key.fold_in(static_cast<std::uint64_t>(head)) : RngKey{};
}

/// How the sequences of a call are shared out: blocks of whole sequences that run in parallel, and long sequences that
/// run one after the other, each parallel inside. Decided by lengths only.
class Schedule {
 public:
  explicit Schedule(const AttentionPlan& plan) : plan_(plan) {
    const auto count = static_cast<std::int64_t>(plan.bounds.size()) - 1;
    double all = 0;
    for (std::int64_t i = 0; i < count; ++i) all += static_cast<double>(length(i)) * static_cast<double>(length(i));
    std::int64_t scores = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const auto square = static_cast<double>(length(i)) * static_cast<double>(length(i));
      if (length(i) > kLongSequence && square * kLongShare > all) {
        long_.push_back(i);
        continue;
      }
      if (scores == 0) blocks_.emplace_back();
      blocks_.back().push_back(i);
      scores += (length(i) + 8) * (length(i) + 8) * plan.heads;
      if (scores >= kTaskScores) scores = 0;
    }
  }

  /// Calls make(longest) for the buffers of a block of sequences, then body(head, buffers) for each of their heads.
  template <class Make, class Body>
  void over_blocks(Make&& make, Body&& body) const {
    parallel_for(static_cast<std::int64_t>(blocks_.size()), 1, [&](std::int64_t block, std::int64_t) {
      const std::vector<std::int64_t>& sequences = blocks_[static_cast<std::size_t>(block)];
      std::int64_t longest = 0;
      for (const std::int64_t i : sequences) longest = std::max(longest, length(i));
      auto buffers = make(longest);
      for (const std::int64_t i : sequences) {
        for (std::int64_t h = 0; h < plan_.heads && length(i) > 0; ++h) body(Head{row(i), length(i), h}, buffers);
      }
    });
  }

  /// Calls body(row, length) for each long sequence.
  template <class Body>
  void over_long(Body&& body) const {
    for (const std::int64_t i : long_) body(row(i), length(i));
  }

 private:
  std::int64_t row(std::int64_t i) const { return plan_.bounds[static_cast<std::size_t>(i)]; }
  std::int64_t length(std::int64_t i) const { return plan_.bounds[static_cast<std::size_t>(i + 1)] - row(i); }

  const AttentionPlan& plan_;
  std::vector<std::vector<std::int64_t>> blocks_;
  std::vector<std::int64_t> long_;
};

/// Keys of a tile of the forward pass over a sequence of this length, at most.
std::int64_t key_tile(const AttentionPlan& plan, std::int64_t length) {
  const std::int64_t block = length > kLongSequence ? kLongBlock : kBlock;
  const std::int64_t width = std::max(plan.width, plan.value_width);
  return std::clamp<std::int64_t>(kProductLimit / (block * width) / 16 * 16, kLongBlock, kMaxKeyTile);
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
    T maximum[kRowRoom], factor[kRowRoom];
    double sum[kRowRoom];
    static_assert(kRowRoom % kTileAlignment == 0 && kRowRoom >= kLongBlock);
    std::fill_n(maximum, round_up(rows, kTileAlignment), -std::numeric_limits<T>::infinity());
    std::fill_n(sum, rows, 0.0);

    const std::int64_t nearest = plan.window > 0 ? std::max<std::int64_t>(begin - plan.window + 1, 0) / 4 * 4 : 0;
    const std::int64_t farthest = plan.causal       ? end
                                  : plan.window > 0 ? std::min(end + plan.window - 1, at.length)
                                                    : at.length;
    const std::int64_t tile = key_tile(plan, at.length);
    for (std::int64_t first = nearest; first < farthest; first += tile) {
      const std::int64_t columns = std::min(tile, farthest - first);
      const T* keys = k.data + (at.row + first) * k.stride + at.head * plan.width;
      const T* values = v.data + (at.row + first) * v.stride + at.head * plan.value_width;
      blas::gemm(Transpose::no, Transpose::yes, rows, columns, plan.width, static_cast<T>(plan.scale), query, q.stride,
                 keys, k.stride, T{0}, scratch.data, scratch.stride);
      const TileBand band = band_of(plan, begin, first);
      const TileDropout dropout = draw_dropout(plan, key, at, begin, rows, first, columns, band, scratch);
      const bool rescale =
          softmax_tile(scratch.data, scratch.stride, rows, columns, band, dropout, maximum, sum, factor);
      if (first > nearest && rescale) scale_rows(out, output_stride, rows, plan.value_width, factor);
      blas::gemm(Transpose::no, Transpose::no, rows, plan.value_width, columns, T{1}, scratch.data, scratch.stride,
                 values, v.stride, first > nearest ? T{1} : T{0}, out, output_stride);
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      factor[r] = static_cast<T>(1 / sum[r]);
      log_sum_exp[(at.row + begin + r) * plan.heads + at.head] = static_cast<double>(maximum[r]) + std::log(sum[r]);
    }
    scale_rows(out, output_stride, rows, plan.value_width, factor);
  }

  Scratch<T> scratch(std::int64_t longest) const {
    return {plan, block_limit(longest), std::min(longest, std::max(key_tile(plan, 1), key_tile(plan, longest))), 1};
  }

  void run() const {
    const Schedule schedule(plan);
    schedule.over_blocks([&](std::int64_t longest) { return scratch(longest); },
                         [&](const Head& at, Scratch<T>& buffers) {
                           const std::int64_t block = block_rows(at.length);
                           for (std::int64_t begin = 0; begin < at.length; begin += block) {
                             queries(at, begin, std::min(begin + block, at.length), buffers);
                           }
                         });
    schedule.over_long([&](std::int64_t row, std::int64_t length) {
      const std::int64_t block = block_rows(length), blocks = block_count(length, block);
      parallel_for(plan.heads * blocks, 1, [&](std::int64_t task, std::int64_t) {
        Scratch<T> buffers = scratch(length);
        const std::int64_t begin = task % blocks * block;
        queries({row, length, task / blocks}, begin, std::min(begin + block, length), buffers);
      });
    });
  }
};

template <class T>
struct Backward {
  const AttentionPlan& plan;
  const AttentionBackward<T>& data;
  const T* delta;  ///< [T, heads], inner products of an output's and its gradient's rows; null when not needed

  /// Queries [query, query + rows) against keys [first, first + columns) of one head of one sequence. At step 0
  /// gradients are set, later they are added to.
  void tile(const Head& at, std::int64_t query, std::int64_t rows, std::int64_t first, std::int64_t columns, bool set,
            Scratch<T>& scratch) const {
    const std::int64_t width = plan.width, value_width = plan.value_width;
    const std::int64_t stride = plan.heads * width, value_stride = plan.heads * value_width,
                       tile_stride = scratch.stride;
    const std::int64_t query_row = at.row + query, key_row = at.row + first;
    const T* queries = data.q.data + query_row * data.q.stride + at.head * width;
    const T* keys = data.k.data + key_row * data.k.stride + at.head * width;
    const T* gradient = data.gradient_output + query_row * value_stride + at.head * value_width;
    T* products = delta == nullptr ? nullptr : scratch.second;
    const T beta = set ? T{0} : T{1};

    blas::gemm(Transpose::no, Transpose::yes, rows, columns, width, static_cast<T>(plan.scale), queries, data.q.stride,
               keys, data.k.stride, T{0}, scratch.data, tile_stride);
    if (products != nullptr) {
      const T* values = data.v.data + key_row * data.v.stride + at.head * value_width;
      blas::gemm(Transpose::no, Transpose::yes, rows, columns, value_width, T{1}, gradient, value_stride, values,
                 data.v.stride, T{0}, products, tile_stride);
    }
    const TileBand band = band_of(plan, query, first);
    const TileDropout dropout =
        draw_dropout(plan, key_of(plan, at.head), at, query, rows, first, columns, band, scratch);
    softmax_tile_backward(scratch.data, products, tile_stride, rows, columns, band, dropout,
                          data.log_sum_exp + query_row * plan.heads + at.head,
                          delta == nullptr ? nullptr : delta + query_row * plan.heads + at.head, plan.heads,
                          static_cast<T>(plan.scale));
    if (data.gradient_v != nullptr) {
      blas::gemm(Transpose::yes, Transpose::no, columns, value_width, rows, T{1}, scratch.data, tile_stride, gradient,
                 value_stride, beta, data.gradient_v + key_row * value_stride + at.head * value_width, value_stride);
    }
    if (data.gradient_k != nullptr) {
      blas::gemm(Transpose::yes, Transpose::no, columns, width, rows, T{1}, products, tile_stride, queries,
                 data.q.stride, beta, data.gradient_k + key_row * stride + at.head * width, stride);
    }
    if (data.gradient_q != nullptr) {
      blas::gemm(Transpose::no, Transpose::no, rows, width, columns, T{1}, products, tile_stride, keys, data.k.stride,
                 beta, data.gradient_q + query_row * stride + at.head * width, stride);
    }
  }

  /// All pairs of blocks that see each other, step by step: within a step no block of keys and no block of queries
  /// occurs twice. Calls run_step(count, pair) for each; it must call pair(head, i, buffers) for every i below count.
  template <class RunStep>
  void steps(std::int64_t length, RunStep&& run_step) const {
    const std::int64_t block = block_rows(length), blocks = block_count(length, block);
    // The nearest rows of blocks that are s blocks apart are (s - 1) block + 1 apart.
    const auto within = [&](std::int64_t apart) { return plan.window <= 0 || (apart - 1) * block + 1 < plan.window; };
    for (std::int64_t step = 0; step < blocks; ++step) {
      const bool ahead = within(step), behind = !plan.causal && within(blocks - step);
      // Queries after their keys, then (bidirectional) those that wrapped around to before them.
      const std::int64_t begin = ahead ? 0 : blocks - step, end = behind ? blocks : blocks - step;
      if (begin >= end) continue;
      run_step(end - begin, [&](const Head& at, std::int64_t pair, Scratch<T>& scratch) {
        const std::int64_t key = (begin + pair) * block, query = (begin + pair + step) % blocks * block;
        tile(at, query, std::min(block, length - query), key, std::min(block, length - key), step == 0, scratch);
      });
    }
  }

  Scratch<T> scratch(std::int64_t longest) const {
    const std::int64_t limit = block_limit(longest);
    return {plan, limit, limit, delta == nullptr ? 1 : 2};
  }

  void run() const {
    const Schedule schedule(plan);
    schedule.over_blocks([&](std::int64_t longest) { return scratch(longest); },
                         [&](const Head& at, Scratch<T>& buffers) {
                           steps(at.length, [&](std::int64_t count, auto&& pair) {
                             for (std::int64_t i = 0; i < count; ++i) pair(at, i, buffers);
                           });
                         });
    schedule.over_long([&](std::int64_t row, std::int64_t length) {
      steps(length, [&](std::int64_t count, auto&& pair) {
        parallel_for(plan.heads * count, 1, [&](std::int64_t task, std::int64_t) {
          Scratch<T> buffers = scratch(length);
          pair(Head{row, length, task / count}, task % count, buffers);
        });
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
