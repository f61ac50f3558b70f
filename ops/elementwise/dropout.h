#pragma once

#include <string_view>

#include "tally/autograd/var.h"
#include "tally/core/random.h"

namespace tally::ops {

struct DropoutOptions {
  double rate = 0;              ///< share of elements set to zero, in [0, 1)
  RngKey key = {};              ///< names the mask
  std::uint64_t first_row = 0;  ///< of x within what the key's rows count, so that the mask does not depend on sharding
};

/// Sets elements to zero at random and multiplies the others by 1 / (1 - rate) (Srivastava et al., JMLR 2014).
///
/// x [..., D] f32 or f64, seen as rows of D. Element (row, column) is kept when the 16 bits that random_bits() draws at
/// (key, first_row + row, column) are at least rate * 2^16, rounded to the nearest. Rate 0 returns x itself.
/// Keeps nothing but the key: backward draws the mask again. A dropped NaN or infinity becomes 0.
/// Throws ValueError for a rate outside [0, 1) or rows beyond 2^32; ShapeError for a scalar; DTypeError.
Var dropout(const Var& x, const DropoutOptions& options);

/// Throws what dropout() throws for options that do not fit x of this shape, in the name of `op`.
void check_dropout(std::string_view op, const Shape& x, const DropoutOptions& options);

}  // namespace tally::ops
