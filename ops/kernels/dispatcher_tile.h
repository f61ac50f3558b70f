#pragma once

#include <cstdint>

// What causal dispatcher attention does to a chunk between its matrix products: rows are positions, columns experts.
// f32 is SIMD, dispatched at run time; f64 exists for checking. All run on the calling thread.

namespace tally::kernels {

/// Index of the first row from 1 on with a score more than `limit` above its column's reference; `rows` when none has.
std::int64_t first_row_above(const float* scores, std::int64_t rows, std::int64_t columns, const float* reference,
                             float limit);
std::int64_t first_row_above(const double* scores, std::int64_t rows, std::int64_t columns, const double* reference,
                             double limit);

/// scores of the first `count` rows become weights exp(score - reference), those of further rows 0. inverse[t] = 1 /
/// (start
/// + the sum of weights up to row t) for the first `count` rows, else 0; maximum includes their scores.
void weigh_rows(float* scores, std::int64_t rows, std::int64_t count, std::int64_t columns, const float* reference,
                const float* start, float* inverse, float* maximum);
void weigh_rows(double* scores, std::int64_t rows, std::int64_t count, std::int64_t columns, const double* reference,
                const double* start, double* inverse, double* maximum);

/// out[b] = x[b] y for `blocks` blocks of n elements each.
void multiply_blocks(float* out, const float* x, const float* y, std::int64_t blocks, std::int64_t n);
void multiply_blocks(double* out, const double* x, const double* y, std::int64_t blocks, std::int64_t n);

/// out[i] += the sum over blocks of x[b][i] y[b][i].
void add_products(float* out, const float* x, const float* y, std::int64_t blocks, std::int64_t n);
void add_products(double* out, const double* x, const double* y, std::int64_t blocks, std::int64_t n);

/// Gradient of scores from that of weights and their sums: in place,
/// gradient[t] = weights[t] (gradient[t] + later - sum over t' >= t of products[t']).
void weight_slope(float* gradient, const float* weights, const float* products, std::int64_t rows, std::int64_t columns,
                  const float* later);
void weight_slope(double* gradient, const double* weights, const double* products, std::int64_t rows,
                  std::int64_t columns, const double* later);

/// Softmax of each row.
void softmax_in_place(float* x, std::int64_t rows, std::int64_t columns);
void softmax_in_place(double* x, std::int64_t rows, std::int64_t columns);

/// gradient = shares (gradient - <gradient, shares>), row by row.
void softmax_slope_in_place(float* gradient, const float* shares, std::int64_t rows, std::int64_t columns);
void softmax_slope_in_place(double* gradient, const double* shares, std::int64_t rows, std::int64_t columns);

/// sums = factor sums + x in double, a factor for each row (null: 1; x null: nothing), and what that is in the element
/// type.
void add_to_sums(double* sums, const double* factor, const float* x, std::int64_t rows, std::int64_t columns,
                 float* rounded);
void add_to_sums(double* sums, const double* factor, const double* x, std::int64_t rows, std::int64_t columns,
                 double* rounded);

}  // namespace tally::kernels
