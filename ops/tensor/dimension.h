#pragma once

#include <string_view>

#include "tally/core/error.h"
#include "tally/core/shape.h"

namespace tally::ops::detail {

/// Dimension `dim` of a shape (negative: from the end), from 0 on. Throws ShapeError, in the name of the op.
inline int checked_dim(std::string_view op, const Shape& shape, int dim) {
  const int rank = shape.rank();
  check<ShapeError>(dim >= -rank && dim < rank, op, "needs a dimension in [", -rank, ", ", rank, ") for shape ", shape,
                    "; got ", dim);
  return shape.normalize(dim);
}

}  // namespace tally::ops::detail
