#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/packed_product.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/scratch.h"

// What recurrences over packed sequences share: sequences of like length walk through time together, so that a step is
// one product of few rows with the hidden weights. A row's bits depend neither on the other sequences nor on threads.

namespace tally::kernels {

/// Sequences that walk through time together, longest first.
struct StepGroup {
  const std::int64_t* members;
  std::int64_t count;
};
inline constexpr std::int64_t kStepGroup = 16;

inline std::int64_t length_of(std::span<const std::int64_t> bounds, std::int64_t sequence) {
  return bounds[static_cast<std::size_t>(sequence) + 1] - bounds[static_cast<std::size_t>(sequence)];
}

/// Calls body(group), in parallel, for groups of all sequences of a length above 0; equal ones in their order.
template <class Body>
void for_each_step_group(std::span<const std::int64_t> bounds, Body&& body) {
  std::vector<std::int64_t> order;
  for (std::int64_t i = 0; i + 1 < static_cast<std::int64_t>(bounds.size()); ++i) {
    if (length_of(bounds, i) > 0) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return length_of(bounds, a) > length_of(bounds, b); });
  parallel_for(static_cast<std::int64_t>(order.size()), kStepGroup, [&](std::int64_t begin, std::int64_t end) {
    body(StepGroup{order.data() + begin, end - begin});
  });
}

/// The group's sequences that are longer than `step`: its first ones.
inline std::int64_t living(std::span<const std::int64_t> bounds, const StepGroup& group, std::int64_t step) {
  std::int64_t alive = 0;
  while (alive < group.count && length_of(bounds, group.members[alive]) > step) ++alive;
  return alive;
}

/// previous [T, width] = the state before each row: that of the row before, or the sequence's row of `initial` (null
/// for zeros).
template <class T>
void previous_rows(std::span<const std::int64_t> bounds, std::int64_t width, const T* initial, const T* output,
                   T* previous) {
  parallel_for(static_cast<std::int64_t>(bounds.size()) - 1, kStepGroup, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const std::int64_t begin = bounds[static_cast<std::size_t>(i)], end = bounds[static_cast<std::size_t>(i) + 1];
      if (begin == end) continue;
      T* to = previous + begin * width;
      if (initial == nullptr) {
        std::fill_n(to, width, T{0});
      } else {
        std::copy_n(initial + i * width, width, to);
      }
      std::copy(output + begin * width, output + (end - 1) * width, to + width);
    }
  });
}

/// Rows that products_of_rows() sums one after the other.
inline constexpr std::int64_t kProductRows = 128;

/// out [m, n] = the sum over rows of a_row b_row^T: the gradient of weights that all rows met. Sums of kProductRows
/// rows are added up, so that errors grow with their number and not with that of the rows.
template <class T>
void products_of_rows(std::int64_t rows, std::int64_t m, std::int64_t n, const T* a, std::int64_t a_stride, const T* b,
                      std::int64_t b_stride, T* out) {
  std::fill_n(out, m * n, T{0});
  Scratch<T> part(rows > 0 ? m * n : 0);
  for (std::int64_t begin = 0; begin < rows; begin += kProductRows) {
    blas::parallel_gemm(blas::Transpose::yes, blas::Transpose::no, m, n, std::min(kProductRows, rows - begin), T{1},
                        a + begin * a_stride, a_stride, b + begin * b_stride, b_stride, T{0}, part.data(), n);
    add_into(out, part.data(), m * n);
  }
}

/// op(matrix) [rows, columns] of many small products; row-major with rows `stride` apart as stored.
template <class T>
class StepMatrix {
 public:
  StepMatrix(const T* data, std::int64_t stride, blas::Transpose transposed, std::int64_t rows, std::int64_t columns);
  /// c [m, columns] += a [m, rows] op(matrix), each with its rows side by side.
  void add_product(std::int64_t m, const T* a, T* c) const;

 private:
  std::int64_t rows_, columns_;
  packed::PackedMatrix packed_;  ///< f32
  const T* data_;                ///< f64
  std::int64_t row_step_, column_step_;
};

template <class T>
StepMatrix<T>::StepMatrix(const T* data, std::int64_t stride, blas::Transpose transposed, std::int64_t rows,
                          std::int64_t columns)
    : rows_(rows),
      columns_(columns),
      data_(data),
      row_step_(transposed == blas::Transpose::yes ? 1 : stride),
      column_step_(transposed == blas::Transpose::yes ? stride : 1) {
  if constexpr (std::is_same_v<T, float>) packed_ = packed::PackedMatrix({data, stride, transposed}, rows, columns);
}

template <class T>
void StepMatrix<T>::add_product(std::int64_t m, const T* a, T* c) const {
  if constexpr (std::is_same_v<T, float>) {
    packed::Product product;
    product.m = m, product.n = columns_, product.k = rows_;
    product.a = {a, rows_};
    product.beta = 1;
    product.c = c, product.c_stride = columns_;
    multiply(product, packed_);
  } else {
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < columns_; ++j) {
        T sum = 0;
        for (std::int64_t k = 0; k < rows_; ++k) sum += a[i * rows_ + k] * data_[k * row_step_ + j * column_step_];
        c[i * columns_ + j] += sum;
      }
    }
  }
}

}  // namespace tally::kernels
