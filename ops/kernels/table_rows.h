#pragma once

#include <cstdint>

// Products with a few rows of a table, chosen by index and read where they stand: nothing is gathered first. f32 is
// SIMD, f64 plain. All run on the calling thread.

namespace tally::kernels {

/// out[j] = sum_d x[d] table[rows[j], d] for `count` rows of a table [., width].
void dot_rows(float* out, const float* x, const float* table, const std::int64_t* rows, std::int64_t count,
              std::int64_t width);
void dot_rows(double* out, const double* x, const double* table, const std::int64_t* rows, std::int64_t count,
              std::int64_t width);

/// y[d] += sum_j factors[j] table[rows[j], d], summed in order of j in runs of 64 rows.
void add_weighted_rows(float* y, const float* factors, const float* table, const std::int64_t* rows, std::int64_t count,
                       std::int64_t width);
void add_weighted_rows(double* y, const double* factors, const double* table, const std::int64_t* rows,
                       std::int64_t count, std::int64_t width);

}  // namespace tally::kernels
