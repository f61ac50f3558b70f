#pragma once

#include <cstddef>
#include <cstdint>

// Copies and additions of rows. All run on the calling thread.

namespace tally::kernels {

/// Copies `rows` pieces of `bytes` each; the pieces begin `from_stride` and `to_stride` bytes apart.
void copy_pieces(const std::byte* from, std::int64_t from_stride, std::byte* to, std::int64_t to_stride,
                 std::int64_t rows, std::int64_t bytes);

/// to[i] = from[indices[i]] for n rows of `bytes` each.
void gather_rows(const std::byte* from, const std::int64_t* indices, std::byte* to, std::int64_t n, std::int64_t bytes);

/// Blocks of n pieces of `bytes` each, the pieces of a block in reverse.
void reverse_pieces(const std::byte* from, std::byte* to, std::int64_t blocks, std::int64_t n, std::int64_t bytes);

/// Where the elements stand that indices name along a dimension: for each of them, row-major in a shape of `rank`
/// sizes, the sum over dimensions of its place times `strides`, the index itself being its place along `dim`.
void positions_along(const std::int64_t* indices, const std::int64_t* sizes, const std::int64_t* strides, int rank,
                     int dim, std::int64_t* positions);

/// out[i width + indices[i]] = 1 for n rows.
template <class T>
void mark_places(const std::int64_t* indices, std::int64_t n, std::int64_t width, T* out) {
  for (std::int64_t i = 0; i < n; ++i) out[i * width + indices[i]] = T{1};
}

/// to[indices[i]] += from[i] for n rows, in order, over columns [begin, end) of rows of `width` elements.
template <class T>
void add_rows_at(T* to, const std::int64_t* indices, const T* from, std::int64_t n, std::int64_t width,
                 std::int64_t begin, std::int64_t end);

}  // namespace tally::kernels
