#pragma once

#include <cstdint>
#include <string_view>

#include "tally/core/words.h"

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
constexpr auto words(Activation) {
  using W = Word<Activation>;
  return std::array{W{"none", Activation::none}, W{"relu", Activation::relu}, W{"gelu", Activation::gelu},
                    W{"silu", Activation::silu}, W{"tanh", Activation::tanh}, W{"sigmoid", Activation::sigmoid}};
}

/// "relu" for Activation::relu.
std::string_view name_of(Activation activation);
/// Throws ConfigError, listing the names, for another one.
Activation activation_named(std::string_view name);

}  // namespace tally::ops
