// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/core/packed_product.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>

#include "tally/core/error.h"
#include "tally/core/packed_product.h"

#ifndef TALLY_CORE_PACKED_PRODUCT_ONCE
#define TALLY_CORE_PACKED_PRODUCT_ONCE
namespace tally::packed {
namespace {

// Sizes of blocks, measured. Each is a whole number of panels and tiles.

/// Longest part of the inner size that is summed at once.
constexpr std::int64_t kDepth = 512;
/// Floats of a packed block of B, which rows of tiles pass over again and again, at small depths: 256 KB. At larger
/// ones it has so many columns, as a block of A is packed for each.
constexpr std::int64_t kRightBlock = 64 * 1024;
constexpr std::int64_t kRightColumns = 512;
/// Floats of a packed block of A.
constexpr std::int64_t kLeftBlock = 24 * 1024;

/// Rows of A are packed when they meet so many columns: fewer are done sooner than packing pays. A transposed A is read
/// as it stands where a tile uses most of a cache line of it.
constexpr std::int64_t kPackLeftFrom = 256;

/// Up to so many rows of A, a B that is not transposed is read as it stands, since packing it would not pay. Fewer
/// where its rows are further apart than a page of memory.
constexpr std::int64_t kPackRightAbove = 256;
constexpr std::int64_t kPackFarRightAbove = 24;
constexpr std::int64_t kPage = 1024;

/// A thread's buffers.
struct Buffers {
  float* left = nullptr;
  float* right = nullptr;
};

/// Panels of op(B) that somebody keeps, of so many columns (whole panels), from one of them on; null when they are to
/// be packed.
struct Kept {
  const float* panels = nullptr;
  std::int64_t columns = 0, first = 0;
};

/// Depth of the equal parts into which an inner size is broken.
inline std::int64_t depth_of(std::int64_t k) {
  const std::int64_t parts = (k + kDepth - 1) / kDepth;
  return (k + parts - 1) / parts;
}

}  // namespace
}  // namespace tally::packed
#endif  // TALLY_CORE_PACKED_PRODUCT_ONCE

HWY_BEFORE_NAMESPACE();
namespace tally::packed {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using blas::Transpose;
using F = hn::ScalableTag<float>;
using V = hn::Vec<F>;

// A tile of C is kept in registers: 12 rows of 2 vectors where there are 32 registers, 6 where there are 16.
constexpr int kTileRows = HWY_MAX_BYTES >= 64 ? 12 : 6;
constexpr int kTileVectors = 2;

HWY_INLINE std::int64_t lanes() { return static_cast<std::int64_t>(hn::Lanes(F())); }
std::int64_t panel_columns_f32() { return kTileVectors * lanes(); }

// ---- Parts of vectors, of which nothing beyond `count` lanes is touched.

/// `count` floats, fewer than a vector has: by pieces of known length, for a call costs more.
HWY_INLINE void copy_few(const float* from, float* to, std::int64_t count) {
  for (std::size_t piece = HWY_MAX_BYTES / sizeof(float) / 2; piece > 0; piece /= 2) {
    if ((static_cast<std::size_t>(count) & piece) == 0) continue;
    std::copy_n(from, piece, to);
    from += piece;
    to += piece;
  }
}

/// The first `count` lanes, and zeros; all lanes when there are more, none when it is negative.
HWY_INLINE V load_part(const float* from, std::int64_t count) {
  const F d;
  if (count >= lanes()) return hn::LoadU(d, from);
  if (count <= 0) return hn::Zero(d);
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN float part[HWY_MAX_BYTES / sizeof(float)] = {};
  copy_few(from, part, count);
  return hn::Load(d, part);
#else
  return hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(count)), d, from);
#endif
}

HWY_INLINE void store_part(V v, float* to, std::int64_t count) {
  const F d;
  if (count >= lanes()) return hn::StoreU(v, d, to);
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN float part[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(v, d, part);
  copy_few(part, to, count);
#else
  hn::BlendedStore(v, hn::FirstN(d, static_cast<std::size_t>(count)), d, to);
#endif
}

// ---- Packing: panels of `width` values side by side for each inner index.

#if HWY_TARGET != HWY_SCALAR
/// Four floats of row 0, then of row 4, of row 8 and so on.
template <class D>
HWY_INLINE hn::Vec<D> every_fourth_row(D d, const float* from, std::int64_t stride) {
  if constexpr (hn::MaxLanes(d) == 4) {
    return hn::LoadU(d, from);
  } else {
    const hn::Half<D> half;
    const auto upper_row = static_cast<std::int64_t>(hn::MaxLanes(half));
    return hn::Combine(d, every_fourth_row(half, from + upper_row * stride, stride),
                       every_fourth_row(half, from, stride));
  }
}

/// to[p * width + r] = from[r * stride + p] for p < 4 and as many rows as a vector of D has lanes.
template <class D>
HWY_INLINE void transpose_four(D d, const float* from, std::int64_t stride, float* to, std::int64_t width) {
  const hn::RepartitionToWide<D> wide;
  const auto pairs = [&](auto v) HWY_ATTR { return hn::BitCast(wide, v); };
  const auto r0 = every_fourth_row(d, from, stride), r1 = every_fourth_row(d, from + stride, stride);
  const auto r2 = every_fourth_row(d, from + 2 * stride, stride), r3 = every_fourth_row(d, from + 3 * stride, stride);
  const auto low01 = pairs(hn::InterleaveLower(d, r0, r1)), high01 = pairs(hn::InterleaveUpper(d, r0, r1));
  const auto low23 = pairs(hn::InterleaveLower(d, r2, r3)), high23 = pairs(hn::InterleaveUpper(d, r2, r3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(wide, low01, low23)), d, to);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(wide, low01, low23)), d, to + width);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(wide, high01, high23)), d, to + 2 * width);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(wide, high01, high23)), d, to + 3 * width);
}
#endif

/// to[p * width + r] = from[r * stride + p] for r < count and p < depth; zeros for r in [count, width).
void pack_across(const float* from, std::int64_t stride, std::int64_t count, std::int64_t depth, float* to,
                 std::int64_t width) {
  std::int64_t whole = 0;
#if HWY_TARGET != HWY_SCALAR
  // 16 of the inner indices at a time, which is one cache line of each row.
  const hn::CappedTag<float, 16> most;
  const hn::FixedTag<float, 4> four;
  constexpr auto kMost = static_cast<std::int64_t>(hn::MaxLanes(most));
  whole = depth / 4 * 4;
  for (std::int64_t line = 0; line < whole; line += 16) {
    const std::int64_t end = std::min(line + 16, whole);
    std::int64_t r = 0;
    for (; r + kMost <= count; r += kMost) {
      for (std::int64_t p = line; p < end; p += 4)
        transpose_four(most, from + r * stride + p, stride, to + p * width + r, width);
    }
    for (; r + 4 <= count; r += 4) {
      for (std::int64_t p = line; p < end; p += 4)
        transpose_four(four, from + r * stride + p, stride, to + p * width + r, width);
    }
  }
  for (std::int64_t r = count / 4 * 4; r < count; ++r) {
    for (std::int64_t p = 0; p < whole; ++p) to[p * width + r] = from[r * stride + p];
  }
#endif
  for (std::int64_t p = whole; p < depth; ++p) {
    for (std::int64_t r = 0; r < count; ++r) to[p * width + r] = from[r * stride + p];
  }
  if (count == width) return;
  for (std::int64_t p = 0; p < depth; ++p) std::fill(to + p * width + count, to + (p + 1) * width, 0.0F);
}

/// to[p * width + r] = from[p * stride + r] for a panel of B, and zeros as above.
void pack_along(const float* from, std::int64_t stride, std::int64_t count, std::int64_t depth, float* to) {
  const F d;
  for (std::int64_t p = 0; p < depth; ++p, from += stride) {
    for (int v = 0; v < kTileVectors; ++v, to += lanes()) {
      hn::Store(load_part(from + v * lanes(), count - v * lanes()), d, to);
    }
  }
}

/// Panels of inner indices [first, first + depth) and columns [column, column + columns).
void pack_right_f32(const MatrixView& b, std::int64_t first, std::int64_t depth, std::int64_t column,
                    std::int64_t columns, float* to) {
  const std::int64_t width = panel_columns_f32();
  for (std::int64_t j = 0; j < columns; j += width) {
    const std::int64_t count = std::min(width, columns - j);
    if (b.transposed == Transpose::yes) {
      pack_across(b.data + (column + j) * b.stride + first, b.stride, count, depth, to, width);
    } else {
      pack_along(b.data + first * b.stride + column + j, b.stride, count, depth, to);
    }
    to += width * depth;
  }
}

// ---- Tiles.

/// A tile of C, and the rows and columns that it is the product of.
struct Tile {
  const float* a;
  std::int64_t a_stride;
  const float* b;
  std::int64_t b_stride;
  std::int64_t depth;
  float alpha, beta;
  float* c;
  std::int64_t c_stride, columns;
  const float* bias;  ///< of its columns, or null
};

/// Stores a tile whose last vector is only part of one. The sums stand behind each other, `vectors` to a row.
HWY_NOINLINE void store_narrow(const float* sums, int rows, int vectors, const Tile& t) {
  const F d;
  const V beta = hn::Set(d, t.beta);
  for (int r = 0; r < rows; ++r) {
    float* c = t.c + r * t.c_stride;
    for (int v = 0; v < vectors; ++v, sums += lanes()) {
      const std::int64_t count = t.columns - v * lanes();
      float* to = c + v * lanes();
      V sum = hn::Load(d, sums);
      if (t.beta != 0) sum = hn::MulAdd(beta, load_part(to, count), sum);
      if (t.bias != nullptr) sum = hn::Add(sum, load_part(t.bias + v * lanes(), count));
      store_part(sum, to, count);
    }
  }
}

// Sums stay in registers only where every loop over them is unrolled.
#define TALLY_UNROLL _Pragma("GCC unroll 16")

/// Of R rows and N vectors. a[r * stride + p] is the element of row r and inner index p when kAcross, and else
/// a[p * stride + r].
template <int R, int N, bool kAcross>
void compute_tile(const Tile& t) {
  const F d;
  V sums[R][N];
  TALLY_UNROLL for (int r = 0; r < R; ++r) { TALLY_UNROLL for (int v = 0; v < N; ++v) sums[r][v] = hn::Zero(d); }
  const float* a = t.a;
  const float* b = t.b;
  const std::int64_t a_stride = t.a_stride;
  const auto step = [&](std::int64_t p) HWY_ATTR {
    V right[N];
    TALLY_UNROLL for (int v = 0; v < N; ++v) right[v] = hn::LoadU(d, b + p * t.b_stride + v * lanes());
    TALLY_UNROLL for (int r = 0; r < R; ++r) {
      const V left = hn::Set(d, kAcross ? a[r * a_stride + p] : a[p * a_stride + r]);
      TALLY_UNROLL for (int v = 0; v < N; ++v) sums[r][v] = hn::MulAdd(left, right[v], sums[r][v]);
    }
  };
  // Two at a time: the counters cost 2 % of a product of depth 64.
  for (std::int64_t pairs = t.depth / 2; pairs > 0; --pairs) {
    step(0);
    step(1);
    a += kAcross ? 2 : 2 * a_stride;
    b += 2 * t.b_stride;
  }
  if (t.depth % 2 != 0) step(0);
  if (t.alpha != 1) {
    const V alpha = hn::Set(d, t.alpha);
    TALLY_UNROLL for (int r = 0; r < R; ++r) {
      TALLY_UNROLL for (int v = 0; v < N; ++v) sums[r][v] = hn::Mul(alpha, sums[r][v]);
    }
  }
  if (t.columns == N * lanes()) {
    if (t.beta != 0) {
      const V beta = hn::Set(d, t.beta);
      TALLY_UNROLL for (int r = 0; r < R; ++r) {
        TALLY_UNROLL for (int v = 0; v < N; ++v) {
          sums[r][v] = hn::MulAdd(beta, hn::LoadU(d, t.c + r * t.c_stride + v * lanes()), sums[r][v]);
        }
      }
    }
    if (t.bias != nullptr) {
      TALLY_UNROLL for (int v = 0; v < N; ++v) {
        const V bias = hn::LoadU(d, t.bias + v * lanes());
        TALLY_UNROLL for (int r = 0; r < R; ++r) sums[r][v] = hn::Add(sums[r][v], bias);
      }
    }
    TALLY_UNROLL for (int r = 0; r < R; ++r) {
      TALLY_UNROLL for (int v = 0; v < N; ++v) hn::StoreU(sums[r][v], d, t.c + r * t.c_stride + v * lanes());
    }
    return;
  }
  HWY_ALIGN float part[R * N * HWY_MAX_BYTES / sizeof(float)];
  TALLY_UNROLL for (int r = 0; r < R; ++r) {
    TALLY_UNROLL for (int v = 0; v < N; ++v) hn::Store(sums[r][v], d, part + (r * N + v) * lanes());
  }
  store_narrow(part, R, N, t);
}

using TileFunction = void (*)(const Tile&);
template <int N, bool kAcross, int... R>
constexpr std::array<TileFunction, sizeof...(R)> tiles_of(std::integer_sequence<int, R...>) {
  return {compute_tile<R + 1, N, kAcross>...};
}
template <int N, bool kAcross>
constexpr auto kTiles = tiles_of<N, kAcross>(std::make_integer_sequence<int, kTileRows>());

HWY_INLINE TileFunction tile_function(std::int64_t rows, bool two_vectors, bool across) {
  const auto r = static_cast<std::size_t>(rows - 1);
  if (two_vectors) return across ? kTiles<2, true>[r] : kTiles<2, false>[r];
  return across ? kTiles<1, true>[r] : kTiles<1, false>[r];
}

// ---- Blocks.

/// Rows [row, row + rows) and inner indices [first, first + depth) of op(A), from the matrix itself or packed.
struct Left {
  const float* data;
  std::int64_t stride, tile_step;
  bool across;
};

HWY_INLINE Left left_block(const Product& p, std::int64_t row, std::int64_t rows, std::int64_t first,
                           std::int64_t depth, float* buffer) {
  const bool across = p.a.transposed == Transpose::no;
  const std::int64_t stride = p.a.stride, step = across ? kTileRows * stride : kTileRows;
  const float* data = across ? p.a.data + row * stride + first : p.a.data + first * stride + row;
  if (p.n < kPackLeftFrom || (!across && kTileRows > 8)) return {data, stride, step, across};
  for (std::int64_t i = 0; i < rows; i += kTileRows, data += step) {
    const std::int64_t count = std::min<std::int64_t>(kTileRows, rows - i);
    float* to = buffer + i * depth;
    if (across) {
      pack_across(data, stride, count, depth, to, kTileRows);
    } else if (count == kTileRows) {
      for (std::int64_t q = 0; q < depth; ++q) std::copy_n(data + q * stride, kTileRows, to + q * kTileRows);
    } else {
      for (std::int64_t q = 0; q < depth; ++q) std::copy_n(data + q * stride, count, to + q * kTileRows);
    }
  }
  return {buffer, kTileRows, kTileRows * depth, false};
}

/// Of the columns [column, column + columns) those from the first to the last of a band's rows [row, row + rows),
/// counted from `column`; nothing is 0 to 0.
struct Part {
  std::int64_t first, end;
};
HWY_INLINE Part part_of(blas::Band band, std::int64_t row, std::int64_t rows, std::int64_t column,
                        std::int64_t columns) {
  const std::int64_t first = std::max<std::int64_t>(band.first + row - column, 0);
  const std::int64_t end = std::min(band.end + row + rows - 1 - column, columns);
  return first < end ? Part{first, end} : Part{0, 0};
}

HWY_INLINE bool cuts(blas::Band band) {
  return band.first > -blas::Band::kUnlimited || band.end < blas::Band::kUnlimited;
}

void multiply_f32(const Product& p, const Kept& kept, const Buffers& buffers) {
  const std::int64_t width = panel_columns_f32();
  const std::int64_t depth_step = depth_of(p.k);
  const std::int64_t column_step = std::max(kRightColumns, kRightBlock / depth_step / width * width);
  const std::int64_t row_step = std::max<std::int64_t>(1, kLeftBlock / depth_step / kTileRows) * kTileRows;
  const bool banded = cuts(p.left) || cuts(p.result);
  const bool near = p.b.stride <= kPage && p.b.stride % lanes() == 0;
  const bool as_stored =
      kept.panels == nullptr && p.b.transposed == Transpose::no && p.m <= (near ? kPackRightAbove : kPackFarRightAbove);
  for (std::int64_t column = 0; column < p.n; column += column_step) {
    const std::int64_t columns = std::min(column_step, p.n - column);
    // A panel that ends with a part of a vector is packed in any case, so that whole vectors can be read.
    const std::int64_t stored = !as_stored ? 0 : columns % lanes() == 0 ? columns : columns / width * width;
    for (std::int64_t first = 0; first < p.k; first += depth_step) {
      const std::int64_t depth = std::min(depth_step, p.k - first);
      if (kept.panels == nullptr && stored < columns) {
        pack_right_f32(p.b, first, depth, column + stored, columns - stored, buffers.right + stored * depth);
      }
      const float* panels =
          kept.panels == nullptr ? buffers.right : kept.panels + first * kept.columns + (kept.first + column) * depth;
      const float beta = first == 0 ? p.beta : 1;
      // Along rows of tiles, which write line after line of C; but what is read as stored and large once only.
      const bool by_columns = stored > 0 && columns * depth > kRightBlock;
      for (std::int64_t row = 0; row < p.m; row += row_step) {
        const std::int64_t rows = std::min(row_step, p.m - row);
        const Left left = left_block(p, row, rows, first, depth, buffers.left);
        const auto tile = [&](std::int64_t i, std::int64_t j) {
          const std::int64_t height = std::min<std::int64_t>(kTileRows, rows - i);
          std::int64_t count = std::min(width, columns - j);
          Part inner{0, depth};
          if (banded) {
            const std::int64_t wanted = part_of(p.result, row + i, height, column + j, width).end;
            if (wanted == 0) return;
            if (wanted <= lanes()) count = std::min(count, lanes());
            inner = part_of(p.left, row + i, height, first, depth);
          }
          const bool packed = j >= stored;
          const std::int64_t b_stride = packed ? width : p.b.stride;
          const float* b = packed ? panels + j * depth : p.b.data + first * p.b.stride + column + j;
          const TileFunction compute = tile_function(height, count > lanes(), left.across);
          compute({left.data + i / kTileRows * left.tile_step + inner.first * (left.across ? 1 : left.stride),
                   left.stride, b + inner.first * b_stride, b_stride, inner.end - inner.first, p.alpha, beta,
                   p.c + (row + i) * p.c_stride + column + j, p.c_stride, count,
                   first + depth == p.k && p.bias != nullptr ? p.bias + column + j : nullptr});
        };
        if (by_columns) {
          for (std::int64_t j = 0; j < columns; j += width) {
            for (std::int64_t i = 0; i < rows; i += kTileRows) tile(i, j);
          }
        } else {
          for (std::int64_t i = 0; i < rows; i += kTileRows) {
            for (std::int64_t j = 0; j < columns; j += width) tile(i, j);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::packed
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::packed {
namespace {

HWY_EXPORT(multiply_f32);
HWY_EXPORT(pack_right_f32);
HWY_EXPORT(panel_columns_f32);

struct Free {
  void operator()(float* memory) const { std::free(memory); }
};

/// Kept by the thread, so that a small product pays no allocation and no fresh pages.
Buffers thread_buffers() {
  constexpr std::int64_t kRight = std::max(kRightBlock, kRightColumns * kDepth);
  thread_local const std::unique_ptr<float[], Free> memory = [] {
    auto* block = static_cast<float*>(std::aligned_alloc(64, (kLeftBlock + kRight) * sizeof(float)));
    if (block == nullptr) throw std::bad_alloc();  // not made: the next product tries again
    return std::unique_ptr<float[], Free>(block);
  }();
  return {memory.get(), memory.get() + kLeftBlock};
}

/// What is left of a product whose inner size is 0.
void scale(const Product& p) {
  for (std::int64_t i = 0; i < p.m; ++i) {
    float* row = p.c + i * p.c_stride;
    for (std::int64_t j = 0; j < p.n; ++j) {
      const float before = p.beta == 0 ? 0 : p.beta * row[j];
      row[j] = p.bias == nullptr ? before : before + p.bias[j];
    }
  }
}

void multiply_with(const Product& p, const Kept& kept) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) return scale(p);
  HWY_DYNAMIC_DISPATCH(multiply_f32)(p, kept, thread_buffers());
}

}  // namespace

void multiply(const Product& product) { multiply_with(product, {}); }

std::int64_t panel_columns() { return HWY_DYNAMIC_DISPATCH(panel_columns_f32)(); }

PackedMatrix::PackedMatrix(const MatrixView& matrix, std::int64_t rows, std::int64_t columns)
    : rows_(rows), columns_(columns), panel_(panel_columns()) {
  const std::int64_t padded = (columns + panel_ - 1) / panel_ * panel_;
  values_ = Tensor({rows, padded});
  if (rows == 0 || columns == 0) return;
  float* to = values_.mutable_data<float>();
  for (std::int64_t first = 0; first < rows; first += depth_of(rows)) {
    const std::int64_t depth = std::min(depth_of(rows), rows - first);
    HWY_DYNAMIC_DISPATCH(pack_right_f32)(matrix, first, depth, 0, columns, to + first * padded);
  }
}

void multiply(const Product& product, const PackedMatrix& b, std::int64_t first_column) {
  check<ShapeError>(b.rows() == product.k && first_column >= 0 && first_column + product.n <= b.columns(),
                    "packed product", "needs a right operand of ", product.k, " rows with columns ", first_column,
                    " to ", first_column + product.n, "; got ", b.rows(), " x ", b.columns());
  if (b.rows() * b.columns() == 0) return multiply_with(product, {});
  check<ValueError>(b.panel_ == panel_columns(), "packed product",
                    "needs an operand packed for the SIMD target in use; got panels of ", b.panel_, " columns");
  check<ShapeError>(first_column % b.panel_ == 0, "packed product", "needs columns from where a panel of ", b.panel_,
                    " begins; got ", first_column);
  multiply_with(product, {b.values_.data<float>(), b.values_.dim(1), first_column});
}

}  // namespace tally::packed
#endif  // HWY_ONCE
