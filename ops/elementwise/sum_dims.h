#pragma once

#include <algorithm>
#include <array>
#include <bitset>

#include "tally/core/tensor.h"

namespace tally::ops {

/// A set of dimensions of a tensor.
using DimSet = std::bitset<kMaxRank>;

/// How a row-major tensor is walked when some of its dimensions are reduced. Neighbouring dimensions that are all kept
/// or all reduced are merged. What is left is, for each of `outputs` kept positions, `rows` reduced rows of `n` kept
/// columns, where n is the last dimensions when they are kept and 1 when they are reduced.
class ReductionWalk {
 public:
  ReductionWalk(const Shape& shape, DimSet reduced);

  std::int64_t outputs() const { return outputs_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t n() const { return n_; }
  /// Offset of the first element of a kept position.
  std::int64_t start(std::int64_t output) const { return locate(kept_, output); }
  /// Rows [begin, end) of the position that starts at `start`, in order, as runs: `body(offset, count)`, rows of a run
  /// being n elements apart.
  template <class Body>
  void runs(std::int64_t start, std::int64_t begin, std::int64_t end, Body&& body) const {
    while (begin < end) {
      const std::int64_t count = std::min(end - begin, run_ - begin % run_);
      body(start + locate(reduced_, begin), count);
      begin += count;
    }
  }

 private:
  struct Group {
    std::int64_t size = 1, stride = 1;
  };
  /// Merged dimensions of one kind, innermost first.
  struct Groups {
    std::array<Group, kMaxRank> group;
    std::size_t count = 0;
  };
  static std::int64_t locate(const Groups& groups, std::int64_t position) {
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < groups.count; ++i) {
      offset += position % groups.group[i].size * groups.group[i].stride;
      position /= groups.group[i].size;
    }
    return offset;
  }

  Groups kept_, reduced_;
  std::int64_t outputs_ = 1, rows_ = 1, n_ = 1, run_ = 1;
};

/// Sums over a set of dimensions, which disappear; `factor` multiplies each sum before it is rounded to the type of x.
/// Accumulates in double over fixed blocks, so that long sums keep their digits and any number of threads gives the
/// same bits. A sum of nothing is 0. Throws DTypeError.
Tensor sum_dims(const Tensor& x, DimSet reduced, double factor = 1);

/// The shape without a set of dimensions, or with sizes of 1 in their place.
Shape reduced_shape(const Shape& shape, DimSet reduced, bool keepdims);

}  // namespace tally::ops
