#pragma once

#include <cstdint>
#include <string_view>

#include "tally/core/dtype.h"

// Codes of codewords: u8 where W <= 256 words have room, else i32.

namespace tally::ops::detail {

constexpr DType codes_dtype(std::int64_t words) { return words <= 256 ? DType::u8 : DType::i32; }

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
