#include "tally/ops/kernels/sinkhorn.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tally::kernels {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();

/// log(e^a + e^b)
double log_add(double a, double b) {
  const double larger = std::max(a, b);
  return larger == kNothing ? kNothing : larger + std::log1p(std::exp(std::min(a, b) - larger));
}

}  // namespace

template <class T>
SoftPermutation::SoftPermutation(const T* logits, std::int64_t stride, std::int64_t n, double factor,
                                 std::int64_t iterations, bool causal)
    : n_(n), factor_(factor), causal_(causal) {
  std::vector<double> x(static_cast<std::size_t>(n * n), kNothing);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < visible(i); ++j)
      x[static_cast<std::size_t>(i * n + j)] = factor * static_cast<double>(logits[i * stride + j]);
  }
  steps_.push_back(x);
  for (std::int64_t step = 0; step < 2 * iterations + 1; ++step) {
    if (step % 2 == 0) {
      for (std::int64_t i = 0; i < n; ++i) {
        double total = kNothing;
        for (std::int64_t j = 0; j < visible(i); ++j) total = log_add(total, x[static_cast<std::size_t>(i * n + j)]);
        for (std::int64_t j = 0; j < visible(i); ++j) x[static_cast<std::size_t>(i * n + j)] -= total;
      }
    } else {
      for (std::int64_t j = 0; j < n; ++j) {
        double total = kNothing;
        for (std::int64_t i = 0; i < n; ++i) {
          if (j >= visible(i)) continue;
          double& entry = x[static_cast<std::size_t>(i * n + j)];
          total = log_add(total, entry);
          if (causal) entry -= total;
        }
        for (std::int64_t i = 0; i < n && !causal; ++i) x[static_cast<std::size_t>(i * n + j)] -= total;
      }
    }
    steps_.push_back(x);
  }
}

template <class T>
void SoftPermutation::write(T* matrix) const {
  const std::vector<double>& x = steps_.back();
  for (std::size_t i = 0; i < x.size(); ++i) matrix[i] = static_cast<T>(std::exp(x[i]));
}

template <class T>
void SoftPermutation::backward(const T* gradient, T* gradient_logits, std::int64_t stride) const {
  const std::int64_t n = n_;
  const auto at = [n](std::int64_t i, std::int64_t j) { return static_cast<std::size_t>(i * n + j); };
  std::vector<double> g(static_cast<std::size_t>(n * n), 0.0);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < visible(i); ++j)
      g[at(i, j)] = static_cast<double>(gradient[i * n + j]) * std::exp(steps_.back()[at(i, j)]);
  }
  for (std::size_t step = steps_.size() - 1; step > 0; --step) {
    const std::vector<double>&before = steps_[step - 1], &after = steps_[step];
    if (step % 2 == 1) {
      for (std::int64_t i = 0; i < n; ++i) {
        double total = 0;
        for (std::int64_t j = 0; j < visible(i); ++j) total += g[at(i, j)];
        for (std::int64_t j = 0; j < visible(i); ++j) g[at(i, j)] -= std::exp(after[at(i, j)]) * total;
      }
      continue;
    }
    for (std::int64_t j = 0; j < n; ++j) {
      double total = 0, sum_below = 0;  // of the rows from i on, relative to the running sum of row i
      for (std::int64_t i = 0; i < n && !causal_; ++i) total += g[at(i, j)];
      for (std::int64_t i = n - 1; i >= 0; --i) {
        if (j >= visible(i)) continue;
        const double running = before[at(i, j)] - after[at(i, j)];  // log of the sum over the rows up to i
        if (causal_) total = g[at(i, j)] + (i + 1 < n ? total * std::exp(running - sum_below) : 0);
        g[at(i, j)] -= std::exp(after[at(i, j)]) * total;
        sum_below = running;
      }
    }
  }
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < visible(i); ++j)
      gradient_logits[i * stride + j] = static_cast<T>(factor_ * g[at(i, j)]);
  }
}

template SoftPermutation::SoftPermutation(const float*, std::int64_t, std::int64_t, double, std::int64_t, bool);
template SoftPermutation::SoftPermutation(const double*, std::int64_t, std::int64_t, double, std::int64_t, bool);
template void SoftPermutation::write(float*) const;
template void SoftPermutation::write(double*) const;
template void SoftPermutation::backward(const float*, float*, std::int64_t) const;
template void SoftPermutation::backward(const double*, double*, std::int64_t) const;

}  // namespace tally::kernels
