#pragma once

#include <vector>

#include "tally/core/tensor.h"

namespace tally::nn {

/// buffer = keep * buffer + weight * amount, in double. Several changes of one buffer in a step keep it once: the first
/// multiplies by `keep`, the others add.
struct BufferChange {
  Tensor buffer;  ///< shares the storage of the module's buffer; f32, f64, or i64 with keep = weight = 1
  Tensor amount;  ///< i64 or f64, as many elements
  double keep = 1;
  double weight = 1;
  /// i64: element i of the amount belongs to element places[i] of the buffer, in order; all others stay, so `keep` is
  /// 1. Absent: an amount for each element.
  Tensor places = {};
};

/// Each row of `buffer` becomes its sum over its count, as they are after all changes of a step: a codebook of moving
/// averages (van den Oord et al. 2017, arXiv 1711.00937, appendix A.1). The counts of each group are smoothed to
/// (count + smoothing) * total / (total + rows * smoothing); a row whose smoothed count is 0 stays.
struct BufferMeans {
  Tensor buffer;  ///< [groups, rows, width], sharing the storage of the module's buffer
  Tensor sums;    ///< [groups, rows, width], sharing storage with a buffer
  Tensor counts;  ///< [groups, rows], sharing storage with a buffer
  double smoothing = 0;
};

/// What a forward pass, which is const, asks to be changed in buffers: values, collected through Context::updates for
/// each shard, appended in the order of shards, and applied after the step's gradients were computed.
struct BufferUpdates {
  std::vector<BufferChange> changes;
  std::vector<BufferMeans> means;

  bool empty() const { return changes.empty() && means.empty(); }
  /// Those of a later shard.
  void append(BufferUpdates later);
  /// Changes in their order, then means, each buffer's once. Throws ShapeError, DTypeError for an amount that does not
  /// fit its buffer, IndexError for a place outside it.
  void apply() const;
};

}  // namespace tally::nn
