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
