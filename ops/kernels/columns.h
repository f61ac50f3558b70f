#pragma once

#include <cstdint>

namespace tally::kernels {

/// Rows that are summed in the element type before the sum goes on in double.
inline constexpr std::int64_t kRowRun = 16;

/// sums[j] += the sum over rows of x[row * stride + j], in runs of kRowRun rows. On the calling thread.
void add_column_sums(double* sums, const float* x, std::int64_t rows, std::int64_t columns, std::int64_t stride);
void add_column_sums(double* sums, const double* x, std::int64_t rows, std::int64_t columns, std::int64_t stride);

/// out[j] = the sum over blocks of sums [blocks, columns], in order.
void fold_blocks(float* out, const double* sums, std::int64_t blocks, std::int64_t columns);
void fold_blocks(double* out, const double* sums, std::int64_t blocks, std::int64_t columns);

}  // namespace tally::kernels
