#pragma once

#include <cstdint>

// Symmetric matrices C [k, k] in packed form: the lower triangle by rows, element (i, j), j <= i, at i (i + 1) / 2 + j.
// All run on the calling thread.

namespace tally::kernels {

constexpr std::int64_t packed_symmetric_size(std::int64_t width) { return width * (width + 1) / 2; }

/// out = C x. Each element is read once and serves both of its places. Sums of a row are in the type of x.
void packed_symmetric_product(const float* packed, const float* x, std::int64_t width, float* out);
void packed_symmetric_product(const double* packed, const double* x, std::int64_t width, double* out);
void packed_symmetric_product(const std::int8_t* packed, const float* x, std::int64_t width, float* out);

/// x^T C x.
float packed_symmetric_form(const float* packed, const float* x, std::int64_t width);
double packed_symmetric_form(const double* packed, const double* x, std::int64_t width);
float packed_symmetric_form(const std::int8_t* packed, const float* x, std::int64_t width);

/// C = decay C + gain x x^T.
void packed_symmetric_update(double* packed, double decay, double gain, const double* x, std::int64_t width);

}  // namespace tally::kernels
