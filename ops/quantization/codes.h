#pragma once

#include <cmath>
#include <cstdint>
#include <string_view>

#include "tally/core/tensor.h"

// What the quantizers share: types of codes (u8 where W <= 256 words have room, else i32) and temperatures.

namespace tally::ops::detail {

/// Similarities are divided by a temperature, in f32 too: may this be one?
inline bool fits_temperature(double temperature) {
  const auto inverse = static_cast<float>(1 / temperature);
  return temperature > 0 && inverse > 0 && std::isfinite(inverse);
}
/// Throws ValueError unless it may.
inline void check_temperature(std::string_view where, double temperature) {
  check<ValueError>(fits_temperature(temperature), where,
                    "needs a finite temperature above 0, with a finite inverse in f32; got ", temperature);
}

constexpr DType codes_dtype(std::int64_t words) { return words <= 256 ? DType::u8 : DType::i32; }

/// Replaces codes [T, B] by the lowest words of equal codeword, as `first_equal` (VectorQuantizationTables) has it, and
/// of equal bias [B * W], where there is one. Does nothing when all codewords differ.
void take_first_of_equals(Tensor& codes, const Tensor& first_equal, const Tensor& bias);

/// Calls `body(Code{})` with Code = std::uint8_t or std::int32_t; throws DTypeError for other types.
template <class Body>
decltype(auto) dispatch_codes(DType dtype, std::string_view where, Body&& body) {
  switch (dtype) {
    case DType::u8:
      return body(std::uint8_t{});
    case DType::i32:
      return body(std::int32_t{});
    default:
      fail<DTypeError>(where, "needs codes of u8 or i32; got ", dtype);
  }
}

}  // namespace tally::ops::detail
