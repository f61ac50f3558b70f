#pragma once

#include <algorithm>
#include <cstdint>

#include "tally/core/blas.h"
#include "tally/ops/kernels/scratch.h"
#include "tally/ops/kernels/softmax_attention.h"

namespace tally::kernels {

/// What rows read of a state, each by several vectors, and the gradients of what they got: for the gradient of the
/// state. They are added in one sum from the last row to the first, so that it is at each row the gradient of the state
/// there. Under a delta rule that stays small where sums over the rows of each reader alone grow with their number and
/// cancel, and lose in f32 what they differ by.
template <class T>
class StateReaders {
 public:
  StateReaders() = default;
  /// For at most `rows` rows of `readers` readers.
  StateReaders(std::int64_t rows, std::int64_t readers, std::int64_t width, std::int64_t value_width)
      : readers_(readers),
        width_(width),
        value_width_(value_width),
        by_(rows * readers * width),
        of_(rows * readers * value_width) {}

  /// Rows `by` [rows, width] of one reader and `sign` times the gradients `of` [rows, value_width].
  void set(std::int64_t reader, std::int64_t rows, MatrixRows<const T> by, MatrixRows<const T> of, T sign) {
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t place = (rows - 1 - i) * readers_ + reader;
      std::copy_n(by.data + i * by.stride, width_, by_.data() + place * width_);
      for (std::int64_t c = 0; c < value_width_; ++c)
        of_.data()[place * value_width_ + c] = sign * of.data[i * of.stride + c];
    }
  }
  /// gradient [width, value_width] += what was set of so many rows of all readers.
  void add_to(T* gradient, std::int64_t rows) const {
    blas::gemm(blas::Transpose::yes, blas::Transpose::no, width_, value_width_, rows * readers_, T{1}, by_.data(),
               width_, of_.data(), value_width_, T{1}, gradient, value_width_);
  }

 private:
  std::int64_t readers_ = 0, width_ = 0, value_width_ = 0;
  Scratch<T> by_, of_;
};

}  // namespace tally::kernels
