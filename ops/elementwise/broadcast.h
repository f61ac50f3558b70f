#pragma once

#include <algorithm>
#include <array>
#include <initializer_list>
#include <string_view>

#include "tally/core/parallel.h"
#include "tally/core/tensor.h"

// Broadcasting, solved once: shapes are aligned at their last dimension, and a size of 1 (or a missing leading
// dimension) repeats, as in NumPy. Forward walks operands with BroadcastLoop, reverse sums with sum_to.

namespace tally::kernels {
enum class BinaryOp;
}

namespace tally::ops {

/// Elements that one block of an elementwise loop or reduction handles: enough to pay for a task, small enough for L2.
inline constexpr std::int64_t kElementGrain = 16384;

/// Shape of the result. Throws ShapeError, with all shapes, when sizes differ and neither is 1.
Shape broadcast_shape(std::string_view op, std::initializer_list<const Shape*> operands);

/// How up to three contiguous operands are read while the output of a broadcast is written row-major. Dimensions that
/// all walk alike are merged, so equal shapes are one run of n, a row vector [D] against [T, D] is T rows with row
/// stride 0, and a column [T, 1] is T rows with step 0.
class BroadcastLoop {
 public:
  static constexpr int kOperands = 3;
  using PerOperand = std::array<std::int64_t, kOperands>;

  /// Rows that kernels take at once: element (i, j) of operand k is at offset[k] + i row_stride[k] + j step[k], of the
  /// output at `output + i n + j`.
  struct Run {
    PerOperand offset{}, row_stride{}, step{};
    std::int64_t output = 0, rows = 1, n = 0;
  };

  /// Every operand must broadcast to `output`.
  BroadcastLoop(const Shape& output, std::initializer_list<const Shape*> operands);

  /// Calls `body(run)` until the whole output is covered, in parallel.
  template <class Body>
  void run(Body&& body) const {
    if (empty_) return;
    const std::int64_t n = size_[0];
    if (rank_ == 1) {
      parallel_for(n, kElementGrain, [&](std::int64_t begin, std::int64_t end) { body(piece(begin, end)); });
      return;
    }
    parallel_for(rows_, std::max<std::int64_t>(1, kElementGrain / n), [&](std::int64_t begin, std::int64_t end) {
      while (begin < end) {
        const Run run = rows_from(begin, end);
        body(run);
        begin += run.rows;
      }
    });
  }

 private:
  Run piece(std::int64_t begin, std::int64_t end) const;
  /// The longest run of rows from row `begin` with constant strides, up to `end`.
  Run rows_from(std::int64_t begin, std::int64_t end) const;

  // Merged dimensions, innermost first.
  std::array<std::int64_t, kMaxRank> size_{};
  std::array<PerOperand, kMaxRank> stride_{};
  int rank_ = 0;
  std::int64_t rows_ = 1;
  bool empty_ = false;
};

/// op(a, b) in the shape `output`, to which both must broadcast.
Tensor broadcast_binary(kernels::BinaryOp op, const Tensor& a, const Tensor& b, const Shape& output);

/// The gradient of broadcasting from `shape`: sums over the dimensions that were repeated. The tensor itself when none
/// was.
Tensor sum_to(const Tensor& gradient, const Shape& shape);

}  // namespace tally::ops
