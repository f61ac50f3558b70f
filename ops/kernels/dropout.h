#pragma once

#include <cstdint>

#include "tally/core/random.h"

namespace tally::kernels {

/// A dropout mask as a function of place: row r, column c is kept when the draw at (key, r, c) is at least `threshold`.
struct DropoutMask {
  RngKey key;
  std::uint32_t threshold = 0;
  double scale = 1;  ///< of kept elements
};

/// The mask for a rate in [0, 1): the threshold is the rate in units of 2^-32.
DropoutMask dropout_mask(double rate, RngKey key);

/// y [rows, columns] = x where kept, times the scale, else 0; row 0 is row `first_row` of the mask. In place when y ==
/// x. On the calling thread.
void apply_dropout(const DropoutMask& mask, std::uint64_t first_row, std::int64_t rows, std::int64_t columns,
                   const float* x, float* y);
void apply_dropout(const DropoutMask& mask, std::uint64_t first_row, std::int64_t rows, std::int64_t columns,
                   const double* x, double* y);

}  // namespace tally::kernels
