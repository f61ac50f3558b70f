#pragma once

#include <cstdint>

// relu that keeps one bit an element for its slope instead of the element. Bit i % 8 of signs[i / 8] says whether y[i]
// > 0; bits beyond n are 0. f32 is SIMD, f64 plain. On the calling thread.

namespace tally::kernels {

/// y[i] = max(y[i], 0), NaN stays; fills signs [(n + 7) / 8].
void relu_with_signs(float* y, std::uint8_t* signs, std::int64_t n);
void relu_with_signs(double* y, std::uint8_t* signs, std::int64_t n);

/// g[i] = 0 where the bit is not set.
void keep_signed(float* g, const std::uint8_t* signs, std::int64_t n);
void keep_signed(double* g, const std::uint8_t* signs, std::int64_t n);

}  // namespace tally::kernels
