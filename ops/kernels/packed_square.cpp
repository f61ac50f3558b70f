#include "tally/ops/kernels/packed_square.h"

#include <algorithm>

#include "tally/ops/kernels/packed_symmetric.h"

namespace tally::kernels {
namespace {

/// The upper triangle from the lower one, tile by tile: a column of the square is a cache line for each element.
template <class T>
void mirror(std::int64_t k, T* square) {
  constexpr std::int64_t kTile = 16;
  for (std::int64_t row = 0; row < k; row += kTile) {
    for (std::int64_t column = 0; column <= row; column += kTile) {
      for (std::int64_t i = row; i < std::min(row + kTile, k); ++i) {
        for (std::int64_t j = column; j < std::min(column + kTile, i); ++j) square[j * k + i] = square[i * k + j];
      }
    }
  }
}

}  // namespace

template <class T>
void unpack_symmetric(const T* packed, std::int64_t k, T* square) {
  for (std::int64_t i = 0; i < k; ++i) std::copy_n(packed + packed_symmetric_size(i), i + 1, square + i * k);
  mirror(k, square);
}

template <class T>
void unpack_with_transpose(const T* packed, std::int64_t k, T* square) {
  unpack_symmetric(packed, k, square);
  for (std::int64_t i = 0; i < k; ++i) square[i * k + i] *= 2;
}

template <class T>
void add_lower(const T* square, std::int64_t k, double* packed) {
  for (std::int64_t i = 0; i < k; ++i) {
    const T* from = square + i * k;
    double* to = packed + packed_symmetric_size(i);
    for (std::int64_t j = 0; j <= i; ++j) to[j] += static_cast<double>(from[j]);
  }
}

template <class T>
void add_both_triangles(const T* square, std::int64_t k, double* packed) {
  for (std::int64_t i = 0; i < k; ++i) {
    double* to = packed + packed_symmetric_size(i);
    for (std::int64_t j = 0; j < i; ++j)
      to[j] += static_cast<double>(square[i * k + j]) + static_cast<double>(square[j * k + i]);
    to[i] += static_cast<double>(square[i * k + i]);
  }
}

template void unpack_symmetric(const float*, std::int64_t, float*);
template void unpack_symmetric(const double*, std::int64_t, double*);
template void unpack_with_transpose(const float*, std::int64_t, float*);
template void unpack_with_transpose(const double*, std::int64_t, double*);
template void add_lower(const float*, std::int64_t, double*);
template void add_lower(const double*, std::int64_t, double*);
template void add_both_triangles(const float*, std::int64_t, double*);
template void add_both_triangles(const double*, std::int64_t, double*);

}  // namespace tally::kernels
