#pragma once

#include <algorithm>
#include <cstdint>

#include "tally/core/kernels.h"
#include "tally/ops/kernels/residual_quantization.h"

// What forward and backward of residual quantization share.

namespace tally::kernels::quantization {

/// Rows of a tile of so many elements.
inline std::int64_t tile_rows(std::int64_t columns, std::int64_t elements) {
  return std::clamp(elements / std::max<std::int64_t>(columns, 1), std::int64_t{64}, std::int64_t{512});
}

/// Codebooks that share a product, and their columns.
struct Group {
  std::int64_t book = 0, books = 0, first = 0, columns = 0;
  std::int64_t end() const { return first + columns; }
};

template <class T>
Group group_at(const QuantizationPlan<T>& plan, std::int64_t index) {
  const std::int64_t book = index * plan.group_books, books = std::min(plan.group_books, plan.books - book);
  return {book, books, book * plan.words, books * plan.words};
}

/// Codes of rows by the codebooks of a group, for codewords of the plan's width.
template <class T, class Code>
CodeRows<Code> code_rows(const QuantizationPlan<T>& plan, const Group& group, const Code* codes, std::int64_t rows) {
  return {codes + group.book, plan.code_stride, rows, group.books, plan.words, plan.width};
}

template <class T>
T* at_or_null(T* from, std::int64_t elements) {
  return from == nullptr ? nullptr : from + elements;
}

/// Rows of `width`; null for zeros.
template <class T>
struct RowsOf {
  const T* data = nullptr;
  std::int64_t stride = 0;
};

/// to [rows, width] = a - b.
template <class T>
void subtract(const RowsOf<T>& a, const RowsOf<T>& b, std::int64_t rows, std::int64_t width, T* to) {
  for (std::int64_t row = 0; row < rows; ++row, to += width) {
    if (a.data == nullptr) {
      std::fill_n(to, width, T{0});
    } else {
      std::copy_n(a.data + row * a.stride, width, to);
    }
    axpy(to, T{-1}, b.data + row * b.stride, width);
  }
}

}  // namespace tally::kernels::quantization
