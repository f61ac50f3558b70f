// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/causal_conv1d.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <algorithm>
#include <utility>

#include "tally/core/parallel.h"
#include "tally/ops/kernels/causal_conv1d.h"
#include "tally/ops/kernels/columns.h"
#include "tally/ops/kernels/elementwise.h"
#include "tally/ops/kernels/scratch.h"
#include "tally/ops/kernels/vectors-inl.h"

#ifndef TALLY_OPS_KERNELS_CAUSAL_CONV1D_ONCE
#define TALLY_OPS_KERNELS_CAUSAL_CONV1D_ONCE
namespace tally::kernels {
namespace {

/// Rows of x, one below the other, and what each is multiplied by.
template <class T>
struct Products {
  const T* rows = nullptr;
  const T* weights = nullptr;
  std::int64_t weight_stride = 0;  ///< from one row's weights to the next one's
  std::int64_t count = 0;
};

}  // namespace
}  // namespace tally::kernels
#endif  // TALLY_OPS_KERNELS_CAUSAL_CONV1D_ONCE

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

using F = hn::ScalableTag<float>;

/// out = start + the products of `first`, then of `second`. Before them come `zeros` rows of zeros: they count for the
/// borders of runs, so that absent rows give the bits of zeros.
void sum_of_products_f32(std::int64_t zeros, const Products<float>& first, const Products<float>& second,
                         const float* start, float* out, std::int64_t width) {
  const F d;
  for_each_vector(d, width, [&](std::int64_t j, std::int64_t lanes) HWY_ATTR {
    auto sum = hn::Zero(d), run = start == nullptr ? hn::Zero(d) : load_lanes(d, start + j, lanes);
    std::int64_t in_run = zeros % kRowRun;
    if (zeros >= kRowRun) std::swap(sum, run);
    for (const Products<float>* part : {&first, &second}) {
      for (std::int64_t i = 0; i < part->count; ++i) {
        run = hn::MulAdd(load_lanes(d, part->rows + i * width + j, lanes),
                         load_lanes(d, part->weights + i * part->weight_stride + j, lanes), run);
        if (++in_run < kRowRun) continue;
        sum = hn::Add(sum, run);
        run = hn::Zero(d);
        in_run = 0;
      }
    }
    store_lanes(hn::Add(sum, run), d, out + j, lanes);
  });
}

/// sums[j] += sum over rows of a b.
void add_column_products_f32(double* sums, const float* a, const float* b, std::int64_t rows, std::int64_t width) {
  const F d;
  HWY_ALIGN float part[HWY_MAX_BYTES / sizeof(float)];
  for_each_vector(d, width, [&](std::int64_t j, std::int64_t lanes) HWY_ATTR {
    for (std::int64_t begin = 0; begin < rows; begin += kRowRun) {
      auto run = hn::Zero(d);
      for (std::int64_t i = begin; i < std::min(begin + kRowRun, rows); ++i) {
        run = hn::MulAdd(load_lanes(d, a + i * width + j, lanes), load_lanes(d, b + i * width + j, lanes), run);
      }
      hn::Store(run, d, part);
      for (std::int64_t k = 0; k < lanes; ++k) sums[j + k] += static_cast<double>(part[k]);
    }
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {

HWY_EXPORT(sum_of_products_f32);
HWY_EXPORT(add_column_products_f32);

constexpr std::int64_t kRows = 64;               // of a task
constexpr std::int64_t kSequences = 16;          // of a task
constexpr std::int64_t kElements = 8192;         // of a task
constexpr std::int64_t kWeightRows = 256;        // of a partial sum of the weight's gradient, at least
constexpr std::int64_t kMostWeightBlocks = 128;  // of them: they are all in memory

void sum_of_products(std::int64_t zeros, const Products<float>& first, const Products<float>& second,
                     const float* start, float* out, std::int64_t width) {
  HWY_DYNAMIC_DISPATCH(sum_of_products_f32)(zeros, first, second, start, out, width);
}

void sum_of_products(std::int64_t, const Products<double>& first, const Products<double>& second, const double* start,
                     double* out, std::int64_t width) {
  for (std::int64_t j = 0; j < width; ++j) {
    double sum = start == nullptr ? 0 : start[j];
    for (const Products<double>* part : {&first, &second}) {
      for (std::int64_t i = 0; i < part->count; ++i) {
        sum += part->rows[i * width + j] * part->weights[i * part->weight_stride + j];
      }
    }
    out[j] = sum;
  }
}

void add_column_products(double* sums, const float* a, const float* b, std::int64_t rows, std::int64_t width) {
  HWY_DYNAMIC_DISPATCH(add_column_products_f32)(sums, a, b, rows, width);
}

void add_column_products(double* sums, const double* a, const double* b, std::int64_t rows, std::int64_t width) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < width; ++j) sums[j] += a[i * width + j] * b[i * width + j];
  }
}

/// Rows [begin, end) of one sequence, which has the rows [first, last).
struct Piece {
  std::int64_t sequence, first, last, begin, end;
};

/// Calls body(piece) for the parts of sequences that rows [begin, end) consist of.
template <class Body>
void for_each_piece(std::span<const std::int64_t> bounds, std::int64_t begin, std::int64_t end, Body&& body) {
  // The last sequence that begins at or before the row: earlier ones with that bound are empty.
  auto sequence = std::upper_bound(bounds.begin(), bounds.end(), begin) - bounds.begin() - 1;
  while (begin < end) {
    const std::int64_t first = bounds[static_cast<std::size_t>(sequence)];
    const std::int64_t last = bounds[static_cast<std::size_t>(sequence) + 1];
    const std::int64_t stop = std::min(end, last);
    if (begin < stop) body(Piece{sequence, first, last, begin, stop});
    begin = std::max(begin, stop);
    ++sequence;
  }
}

template <class T>
std::int64_t row_count(const ConvolutionRows<T>& rows) {
  return rows.bounds.empty() ? 0 : rows.bounds.back();
}

}  // namespace

template <class T>
void causal_conv1d(const ConvolutionRows<T>& rows, const T* weight, const T* bias, bool silu, T* y) {
  const std::int64_t width = rows.width, before = rows.taps - 1;
  parallel_for(row_count(rows), kRows, [&](std::int64_t from, std::int64_t to) {
    for_each_piece(rows.bounds, from, to, [&](const Piece& piece) {
      for (std::int64_t t = piece.begin; t < piece.end; ++t) {
        // Taps [0, outside) see rows before the sequence.
        const std::int64_t place = t - piece.first, outside = std::max<std::int64_t>(before - place, 0);
        Products<T> initial,
            own{rows.x + (t - before + outside) * width, weight + outside * width, width, rows.taps - outside};
        if (rows.initial != nullptr && outside > 0) {
          initial = {rows.initial + (piece.sequence * before + place) * width, weight, width, outside};
        }
        sum_of_products(outside - initial.count, initial, own, bias, y + t * width, width);
      }
    });
    if (silu) unary(UnaryOp::silu, y + from * width, y + from * width, (to - from) * width);
  });
}

template <class T>
void silu_cotangents(const T* gy, T* before, std::int64_t count) {
  parallel_for(count, kElements, [&](std::int64_t from, std::int64_t to) {
    unary_backward(UnaryOp::silu, gy + from, before + from, before + from, to - from);
  });
}

template <class T>
void causal_conv1d_rows_gradient(const ConvolutionRows<T>& rows, const T* weight, const T* g, T* gx) {
  const std::int64_t width = rows.width;
  const T* own = weight + (rows.taps - 1) * width;
  parallel_for(row_count(rows), kRows, [&](std::int64_t from, std::int64_t to) {
    for_each_piece(rows.bounds, from, to, [&](const Piece& piece) {
      for (std::int64_t t = piece.begin; t < piece.end; ++t) {
        sum_of_products(0, {}, Products<T>{g + t * width, own, -width, std::min(rows.taps, piece.last - t)}, nullptr,
                        gx + t * width, width);
      }
    });
  });
}

template <class T>
void causal_conv1d_initial_gradient(const ConvolutionRows<T>& rows, const T* weight, const T* g, T* ginitial) {
  const std::int64_t width = rows.width, before = rows.taps - 1;
  const auto count = static_cast<std::int64_t>(rows.bounds.size()) - 1;
  parallel_for(count, kSequences, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t sequence = from; sequence < to; ++sequence) {
      const std::int64_t first = rows.bounds[static_cast<std::size_t>(sequence)];
      const std::int64_t length = rows.bounds[static_cast<std::size_t>(sequence) + 1] - first;
      for (std::int64_t i = 0; i < before; ++i) {
        // Seen by tap i of the first row, by tap i - 1 of the second, ...
        sum_of_products(0, {}, Products<T>{g + first * width, weight + i * width, -width, std::min(i + 1, length)},
                        nullptr, ginitial + (sequence * before + i) * width, width);
      }
    }
  });
}

template <class T>
void causal_conv1d_weight_gradient(const ConvolutionRows<T>& rows, const T* g, T* gweight, T* gbias) {
  const std::int64_t width = rows.width, before = rows.taps - 1, total = row_count(rows);
  const std::int64_t grain = std::max(kWeightRows, (total + kMostWeightBlocks - 1) / kMostWeightBlocks);
  const std::int64_t blocks = block_count(total, grain), columns = rows.taps * width;
  const auto room = [](const T* wanted, std::int64_t size) {
    return Scratch<double>::zeros(wanted != nullptr ? size : 0);
  };
  auto sums = room(gweight, blocks * columns), bias_sums = room(gbias, blocks * width);
  const auto add_weight_sums = [&](double* weight_sums, const Piece& piece) {
    for (std::int64_t i = 0; i < rows.taps; ++i) {
      // Up to row `inside` of the piece, tap i saw rows before the sequence.
      const std::int64_t inside = std::clamp(piece.first + before - i, piece.begin, piece.end);
      double* out = weight_sums + i * width;
      if (rows.initial != nullptr && inside > piece.begin) {
        const std::int64_t place = piece.begin - piece.first;
        add_column_products(out, g + piece.begin * width, rows.initial + (piece.sequence * before + place + i) * width,
                            inside - piece.begin, width);
      }
      if (inside < piece.end) {
        add_column_products(out, g + inside * width, rows.x + (inside - before + i) * width, piece.end - inside, width);
      }
    }
  };
  parallel_for(total, grain, [&](std::int64_t from, std::int64_t to) {
    // Few rows at a time: those that all taps read stay in the first cache.
    for (std::int64_t run = from; gweight != nullptr && run < to; run += kRowRun) {
      for_each_piece(rows.bounds, run, std::min(run + kRowRun, to),
                     [&](const Piece& piece) { add_weight_sums(sums.data() + from / grain * columns, piece); });
    }
    if (gbias != nullptr) {
      add_column_sums(bias_sums.data() + from / grain * width, g + from * width, to - from, width, width);
    }
  });
  if (gweight != nullptr) fold_blocks(gweight, sums.data(), blocks, columns);
  if (gbias != nullptr) fold_blocks(gbias, bias_sums.data(), blocks, width);
}

#define TALLY_INSTANTIATE(T)                                                                       \
  template void causal_conv1d(const ConvolutionRows<T>&, const T*, const T*, bool, T*);            \
  template void silu_cotangents(const T*, T*, std::int64_t);                                       \
  template void causal_conv1d_rows_gradient(const ConvolutionRows<T>&, const T*, const T*, T*);    \
  template void causal_conv1d_initial_gradient(const ConvolutionRows<T>&, const T*, const T*, T*); \
  template void causal_conv1d_weight_gradient(const ConvolutionRows<T>&, const T*, T*, T*);
TALLY_INSTANTIATE(float)
TALLY_INSTANTIATE(double)
#undef TALLY_INSTANTIATE

}  // namespace tally::kernels
#endif  // HWY_ONCE
