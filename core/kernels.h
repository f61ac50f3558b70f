#pragma once

#include <cstdint>

// The few vector kernels that many rooms need. f32 is SIMD, dispatched at run time; f64 exists for checking and is
// plain. Pointers need no alignment. Arrays must not overlap unless they are the same. All run on the calling thread.

namespace tally::kernels {

/// y[i] += x[i]
void add_into(float* y, const float* x, std::int64_t n);
void add_into(double* y, const double* x, std::int64_t n);

/// y[i] += a * x[i]
void axpy(float* y, float a, const float* x, std::int64_t n);
void axpy(double* y, double a, const double* x, std::int64_t n);

/// y[i] *= a
void scale(float* y, float a, std::int64_t n);
void scale(double* y, double a, std::int64_t n);

/// Sum of x[i] * y[i].
float dot(const float* x, const float* y, std::int64_t n);
double dot(const double* x, const double* y, std::int64_t n);

/// Sum of x[i]; f32 is summed in several lanes, in double.
double sum(const float* x, std::int64_t n);
double sum(const double* x, std::int64_t n);

/// Sum of x[i]^2 in double: the squared norm.
double sum_squares(const float* x, std::int64_t n);
double sum_squares(const double* x, std::int64_t n);

/// Largest element; -infinity for n = 0. NaN elements are not reported.
float max_value(const float* x, std::int64_t n);
double max_value(const double* x, std::int64_t n);

/// y[i] = exp(scale * x[i] - shift); returns the sum of the y[i]. In place when y == x.
/// f32: the argument is rounded to f32, then within 2 ulp; results below the smallest normal number are 0. NaN stays
/// NaN.
double exp_and_sum(float* y, const float* x, float scale, float shift, std::int64_t n);
double exp_and_sum(double* y, const double* x, double scale, double shift, std::int64_t n);

/// Coefficients of one Adam step (Kingma & Ba, arXiv 1412.6980), bias corrections folded in by the caller.
struct AdamStep {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double step_size = 1e-3;        ///< learning rate / (1 - beta1^t)
  double inverse_correction = 1;  ///< 1 / sqrt(1 - beta2^t)
  double epsilon = 1e-8;
  double decay = 0;  ///< decoupled weight decay times the learning rate (AdamW)
};

/// m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, w -= decay w + step_size m / (sqrt(v) inverse_correction
/// + epsilon). A null gradient stands for zeros.
void adam_update(float* w, float* m, float* v, const float* g, std::int64_t n, const AdamStep& step);
void adam_update(double* w, double* m, double* v, const double* g, std::int64_t n, const AdamStep& step);

}  // namespace tally::kernels
