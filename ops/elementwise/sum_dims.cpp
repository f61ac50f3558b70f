#include "tally/ops/elementwise/sum_dims.h"

#include <algorithm>
#include <vector>

#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/elementwise/broadcast.h"
#include "tally/ops/kernels/columns.h"

namespace tally::ops {

ReductionWalk::ReductionWalk(const Shape& shape, DimSet reduced) {
  std::int64_t stride = 1;
  bool last_reduced = false, first = true;
  for (int d = shape.rank() - 1; d >= 0; --d) {
    const std::int64_t size = shape[d];
    const bool is_reduced = reduced[static_cast<std::size_t>(d)];
    (is_reduced ? rows_ : outputs_) *= size;
    if (size == 1) continue;
    if (first && !is_reduced) n_ = size;
    Groups& groups = is_reduced ? reduced_ : kept_;
    if (!first && last_reduced == is_reduced) {
      groups.group[groups.count - 1].size *= size;
      if (groups.count == 1 && !is_reduced && groups.group[0].stride == 1) n_ *= size;
    } else {
      groups.group[groups.count++] = {size, stride};
    }
    last_reduced = is_reduced;
    first = false;
    stride *= size;
  }
  // The kept columns are walked by whoever takes a row.
  if (n_ != 1 && kept_.count > 0) {
    outputs_ = n_ == 0 ? 0 : outputs_ / n_;
    for (std::size_t i = 1; i < kept_.count; ++i) kept_.group[i - 1] = kept_.group[i];
    --kept_.count;
  }
  run_ = reduced_.count > 0 ? reduced_.group[0].size : 1;
}

Shape reduced_shape(const Shape& shape, DimSet reduced, bool keepdims) {
  Shape result = shape;
  for (int d = shape.rank() - 1; d >= 0; --d) {
    if (!reduced[static_cast<std::size_t>(d)]) continue;
    if (keepdims) {
      result.set(d, 1);
    } else {
      result = result.without(d);
    }
  }
  return result;
}

Tensor sum_dims(const Tensor& x, DimSet reduced, double factor) {
  const Shape shape = reduced_shape(x.shape(), reduced, false);
  if (x.numel() == 0) return Tensor::zeros(shape, x.dtype());
  const Tensor source = x.contiguous();
  Tensor result(shape, x.dtype());
  const ReductionWalk walk(x.shape(), reduced);
  const std::int64_t n = walk.n();
  // A task sums a block of rows over a tile of columns of one output position.
  const std::int64_t tile = std::min<std::int64_t>(n, 1024);
  const std::int64_t block = std::max<std::int64_t>(1, kElementGrain / tile);
  const std::int64_t tiles = block_count(n, tile), blocks = block_count(walk.rows(), block);
  const std::int64_t tasks = walk.outputs() * tiles * blocks;
  const std::int64_t work = std::min(block, walk.rows()) * tile;
  dispatch_floating(x.dtype(), "sum", [&]<class T>(T) {
    const T* in = source.data<T>();
    T* out = result.mutable_data<T>();
    std::vector<double> partial(blocks > 1 ? static_cast<std::size_t>(tasks * tile) : 0);
    parallel_for(tasks, std::max<std::int64_t>(1, kElementGrain / work), [&](std::int64_t begin, std::int64_t end) {
      std::vector<double> local(blocks > 1 ? 0 : static_cast<std::size_t>(tile));
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t row = task % blocks * block, column = task / blocks % tiles * tile,
                           output = task / blocks / tiles;
        const std::int64_t width = std::min(tile, n - column);
        double* total = blocks > 1 ? partial.data() + task * tile : local.data();
        std::fill(total, total + width, 0.0);
        walk.runs(walk.start(output) + column, row, std::min(walk.rows(), row + block),
                  [&](std::int64_t offset, std::int64_t count) {
                    if (n == 1) {
                      *total += kernels::sum(in + offset, count);
                    } else {
                      kernels::add_column_sums(total, in + offset, count, width, n);
                    }
                  });
        if (blocks > 1) continue;
        for (std::int64_t j = 0; j < width; ++j) out[output * n + column + j] = static_cast<T>(total[j] * factor);
      }
    });
    if (blocks == 1) return;
    for (std::int64_t group = 0; group < walk.outputs() * tiles; ++group) {
      const std::int64_t column = group % tiles * tile, output = group / tiles;
      double* total = partial.data() + group * blocks * tile;
      const std::int64_t width = std::min(tile, n - column);
      for (std::int64_t b = 1; b < blocks; ++b) kernels::add_into(total, total + b * tile, width);
      for (std::int64_t j = 0; j < width; ++j) out[output * n + column + j] = static_cast<T>(total[j] * factor);
    }
  });
  return result;
}

}  // namespace tally::ops
