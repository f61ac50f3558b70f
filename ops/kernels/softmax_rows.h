#pragma once

#include <cstdint>

// Softmax of one row and its relatives. f32 is SIMD, dispatched at run time; f64 exists for checking. Sums are in
// double. Arrays must not overlap. What they compute is said in ops/tensor/softmax.h.

namespace tally::kernels {

void softmax_row(const float* x, float* y, std::int64_t n);
void softmax_row(const double* x, double* y, std::int64_t n);

void log_softmax_row(const float* x, float* y, std::int64_t n);
void log_softmax_row(const double* x, double* y, std::int64_t n);

/// gx = y (gy - <gy, y>)
void softmax_backward(const float* y, const float* gy, float* gx, std::int64_t n);
void softmax_backward(const double* y, const double* gy, double* gx, std::int64_t n);

/// gx = gy - exp(y) sum gy
void log_softmax_backward(const float* y, const float* gy, float* gx, std::int64_t n);
void log_softmax_backward(const double* y, const double* gy, double* gx, std::int64_t n);

}  // namespace tally::kernels
