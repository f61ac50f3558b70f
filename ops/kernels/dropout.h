#pragma once

#include <algorithm>
#include <cstdint>

#include "tally/core/random.h"

namespace tally::kernels {

/// Random bits of one place. 16 tell a rate to 2^-17, and cost half of what 32 do.
using MaskBits = std::uint16_t;
/// Places of a row that are drawn at once: runs that begin at a multiple cost least.
inline constexpr std::int64_t kMaskDraw = 8;

/// A dropout mask as a function of place: row r, column c is kept when the bits at (key, r, c) are at least
/// `threshold`.
struct DropoutMask {
  RngKey key;
  MaskBits threshold = 0;
  double scale = 1;  ///< of kept elements
};

/// The mask for a rate in [0, 1): the threshold is the rate in units of 2^-16, rounded to the nearest below 2^16; the
/// scale is 1 / (1 - rate).
DropoutMask dropout_mask(double rate, RngKey key);

/// The bits of a mask for rows that are taken in order, drawn ahead several rows at a time. One call at a time on one
/// thread; about 4 KB.
class MaskRows {
 public:
  /// Of rows [0, rows) of `columns`, row 0 being row `first_row` of the mask; a null mask is never asked.
  MaskRows(const DropoutMask* mask, std::uint64_t first_row, std::int64_t rows, std::int64_t columns)
      : mask_(mask), first_row_(first_row), rows_(rows), columns_(columns) {}

  /// The bits of columns [first, first + n) of a row, n at most kRun: until the next call. Whole vectors may be read.
  const MaskBits* at(std::int64_t row, std::int64_t first, std::int64_t n) {
    if (columns_ > kRun) {
      random_bits(mask_->key, first_row_ + static_cast<std::uint64_t>(row), static_cast<std::uint64_t>(first), n,
                  bits_);
      return bits_;
    }
    const std::int64_t stride = (columns_ + kMaskDraw - 1) / kMaskDraw * kMaskDraw;
    if (row < begin_ || row >= end_) {
      begin_ = row;
      end_ = std::min(rows_, row + kRun / stride);
      random_bits(mask_->key, first_row_ + static_cast<std::uint64_t>(row), end_ - row, 0, columns_, bits_, stride);
    }
    return bits_ + (row - begin_) * stride + first;
  }

  /// Columns of a run. A multiple of kMaskDraw; the bits stay in the first-level cache.
  static constexpr std::int64_t kRun = 2048;

 private:
  const DropoutMask* mask_;
  std::uint64_t first_row_;
  std::int64_t rows_, columns_, begin_ = 0, end_ = 0;
  MaskBits bits_[kRun + 64];
};

/// y [rows, columns] = x where kept, times the scale, else 0; row 0 is row `first_row` of the mask. In place when y ==
/// x. On the calling thread.
void apply_dropout(const DropoutMask& mask, std::uint64_t first_row, std::int64_t rows, std::int64_t columns,
                   const float* x, float* y);
void apply_dropout(const DropoutMask& mask, std::uint64_t first_row, std::int64_t rows, std::int64_t columns,
                   const double* x, double* y);

}  // namespace tally::kernels
