#pragma once

#include <cstdint>
#include <string_view>

namespace tally::ops {

/// A function applied to each element of what a layer computed.
enum class Activation : std::uint8_t {
  none,
  relu,  ///< max(x, 0); slope 0 at 0
  gelu,  ///< x Phi(x) with the normal distribution function (erf form; Hendrycks & Gimpel, arXiv 1606.08415)
  silu,  ///< x sigmoid(x) (arXiv 1702.03118)
  tanh,
  sigmoid,  ///< 1 / (1 + exp(-x))
};

/// "relu" for Activation::relu.
std::string_view name_of(Activation activation);
/// Throws ConfigError, listing the names, for another one.
Activation activation_named(std::string_view name);

}  // namespace tally::ops
