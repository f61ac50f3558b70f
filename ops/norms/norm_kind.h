#pragma once

#include <cstdint>

namespace tally::ops {

/// How a row is normalised before the weight (and bias) is applied.
enum class NormKind : std::uint8_t {
  layer,  ///< (x - mean) / sqrt(variance + epsilon) (Ba et al., arXiv 1607.06450)
  rms,    ///< x / sqrt(mean of squares + epsilon) (Zhang & Sennrich, arXiv 1910.07467)
};

}  // namespace tally::ops
