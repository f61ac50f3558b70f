#include "tally/ops/kernels/copy.h"

#include <cstring>

#include "tally/core/kernels.h"

namespace tally::kernels {

void copy_pieces(const std::byte* from, std::int64_t from_stride, std::byte* to, std::int64_t to_stride,
                 std::int64_t rows, std::int64_t bytes) {
  for (std::int64_t i = 0; i < rows; ++i) {
    std::memcpy(to + i * to_stride, from + i * from_stride, static_cast<std::size_t>(bytes));
  }
}

void gather_rows(const std::byte* from, const std::int64_t* indices, std::byte* to, std::int64_t n,
                 std::int64_t bytes) {
  for (std::int64_t i = 0; i < n; ++i)
    std::memcpy(to + i * bytes, from + indices[i] * bytes, static_cast<std::size_t>(bytes));
}

void reverse_pieces(const std::byte* from, std::byte* to, std::int64_t blocks, std::int64_t n, std::int64_t bytes) {
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t first = block * n, last = first + n - 1;
    for (std::int64_t i = 0; i < n; ++i) {
      std::memcpy(to + (first + i) * bytes, from + (last - i) * bytes, static_cast<std::size_t>(bytes));
    }
  }
}

void positions_along(const std::int64_t* indices, const std::int64_t* sizes, const std::int64_t* strides, int rank,
                     int dim, std::int64_t* positions) {
  std::int64_t count = 1;
  for (int d = 0; d < rank; ++d) count *= sizes[d];
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t position = indices[i] * strides[dim], rest = i;
    for (int d = rank - 1; d >= 0; --d) {
      if (d != dim) position += rest % sizes[d] * strides[d];
      rest /= sizes[d];
    }
    positions[i] = position;
  }
}

template <class T>
void add_rows_at(T* to, const std::int64_t* indices, const T* from, std::int64_t n, std::int64_t width,
                 std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = 0; i < n; ++i) add_into(to + indices[i] * width + begin, from + i * width + begin, end - begin);
}

template void add_rows_at(float*, const std::int64_t*, const float*, std::int64_t, std::int64_t, std::int64_t,
                          std::int64_t);
template void add_rows_at(double*, const std::int64_t*, const double*, std::int64_t, std::int64_t, std::int64_t,
                          std::int64_t);

}  // namespace tally::kernels
