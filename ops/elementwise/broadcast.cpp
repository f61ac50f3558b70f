#include "tally/ops/elementwise/broadcast.h"

#include "tally/ops/elementwise/sum_dims.h"
#include "tally/ops/kernels/elementwise.h"

namespace tally::ops {
namespace {

/// Size of an operand along dimension `d` of the output; missing leading dimensions are 1.
std::int64_t aligned_size(const Shape& operand, const Shape& output, int d) {
  const int axis = d - (output.rank() - operand.rank());
  return axis < 0 ? 1 : operand[axis];
}

}  // namespace

Shape broadcast_shape(std::string_view op, std::initializer_list<const Shape*> operands) {
  Shape result;
  for (const Shape* operand : operands) {
    if (operand->rank() > result.rank()) result = *operand;
  }
  for (int d = 0; d < result.rank(); ++d) {
    std::int64_t size = 1;
    for (const Shape* operand : operands) {
      const std::int64_t extent = aligned_size(*operand, result, d);
      if (extent == 1 || extent == size) continue;
      if (size != 1) {
        std::string shapes;
        for (const Shape* each : operands) shapes += detail::join(shapes.empty() ? "" : " and ", *each);
        fail<ShapeError>(op, "needs shapes whose sizes, aligned at the last dimension, are equal or 1; got ", shapes);
      }
      size = extent;
    }
    result.set(d, size);
  }
  return Shape(result.sizes());  // checks the number of elements
}

BroadcastLoop::BroadcastLoop(const Shape& output, std::initializer_list<const Shape*> operands)
    : empty_(output.numel() == 0) {
  PerOperand below{};  // elements of each operand in one step of the dimension
  below.fill(1);
  for (int d = output.rank() - 1; d >= 0; --d) {
    const std::int64_t size = output[d];
    PerOperand stride{};
    std::size_t k = 0;
    for (const Shape* operand : operands) {
      const std::int64_t extent = aligned_size(*operand, output, d);
      stride[k] = extent == 1 ? 0 : below[k];
      below[k] *= extent;
      ++k;
    }
    if (size == 1) continue;
    if (rank_ > 0) {
      const auto last = static_cast<std::size_t>(rank_ - 1);
      bool alike = true;
      for (k = 0; k < operands.size(); ++k) alike = alike && stride[k] == stride_[last][k] * size_[last];
      if (alike) {
        size_[last] *= size;
        continue;
      }
    }
    size_[static_cast<std::size_t>(rank_)] = size;
    stride_[static_cast<std::size_t>(rank_)] = stride;
    ++rank_;
  }
  if (rank_ == 0) size_[static_cast<std::size_t>(rank_++)] = 1;
  for (int d = 1; d < rank_; ++d) rows_ *= size_[static_cast<std::size_t>(d)];
}

BroadcastLoop::Run BroadcastLoop::piece(std::int64_t begin, std::int64_t end) const {
  Run run;
  run.step = stride_[0];
  for (std::size_t k = 0; k < kOperands; ++k) run.offset[k] = begin * run.step[k];
  run.output = begin;
  run.n = end - begin;
  return run;
}

BroadcastLoop::Run BroadcastLoop::rows_from(std::int64_t begin, std::int64_t end) const {
  Run run;
  run.step = stride_[0];
  run.row_stride = stride_[1];
  run.n = size_[0];
  run.output = begin * run.n;
  run.rows = std::min(end - begin, size_[1] - begin % size_[1]);
  std::int64_t rest = begin;
  for (int d = 1; d < rank_; ++d) {
    const auto at = static_cast<std::size_t>(d);
    for (std::size_t k = 0; k < kOperands; ++k) run.offset[k] += rest % size_[at] * stride_[at][k];
    rest /= size_[at];
  }
  return run;
}

Tensor broadcast_binary(kernels::BinaryOp op, const Tensor& a, const Tensor& b, const Shape& output) {
  const Tensor left = a.contiguous(), right = b.contiguous();
  Tensor result(output, a.dtype());
  dispatch_floating(a.dtype(), "elementwise", [&]<class T>(T) {
    const T *pa = left.data<T>(), *pb = right.data<T>();
    T* y = result.mutable_data<T>();
    BroadcastLoop(output, {&left.shape(), &right.shape()}).run([&](const BroadcastLoop::Run& run) {
      kernels::binary_rows(op, kernels::RowOperand<T>{pa + run.offset[0], run.row_stride[0], run.step[0]},
                           kernels::RowOperand<T>{pb + run.offset[1], run.row_stride[1], run.step[1]}, y + run.output,
                           run.rows, run.n);
    });
  });
  return result;
}

Tensor sum_to(const Tensor& gradient, const Shape& shape) {
  if (gradient.shape() == shape) return gradient;
  DimSet repeated;
  const int added = gradient.rank() - shape.rank();
  for (int d = 0; d < gradient.rank(); ++d) {
    repeated.set(static_cast<std::size_t>(d), d < added || (shape[d - added] == 1 && gradient.dim(d) != 1));
  }
  return sum_dims(gradient, repeated).reshape(shape);
}

}  // namespace tally::ops
