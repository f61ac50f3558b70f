#pragma once

#include <cstdint>

namespace tally::kernels {

/// losses[i] = log(1 + exp(x[i])) - targets[i] x[i] and slopes[i] = sigmoid(x[i]) - targets[i], without overflow for
/// any x and without cancellation for targets of 0 and 1. Null targets are zeros; null slopes are not computed.
/// `slopes` may be `x`. NaN stays NaN. f32 is SIMD, f64 plain; on the calling thread.
void logistic_loss(float* losses, float* slopes, const float* x, const float* targets, std::int64_t n);
void logistic_loss(double* losses, double* slopes, const double* x, const double* targets, std::int64_t n);

}  // namespace tally::kernels
