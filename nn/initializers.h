#pragma once

#include "tally/core/random.h"
#include "tally/core/tensor.h"

// Initial values as pure functions of a key. All give f32.

namespace tally::nn {

Tensor normal(const Shape& shape, double deviation, RngKey key);
/// Normal, redrawn beyond two deviations.
Tensor truncated_normal(const Shape& shape, double deviation, RngKey key);
Tensor uniform(const Shape& shape, double bound, RngKey key);
/// Glorot & Bengio 2010: uniform in +-sqrt(6 / (fan_in + fan_out)) for a weight [out, in].
Tensor xavier_uniform(const Shape& shape, RngKey key);
/// Normal with deviation sqrt(2 / (fan_in + fan_out)), for a weight [out, in, rest...]: fan_in = in * rest, fan_out =
/// out * rest, as PyTorch counts them.
Tensor xavier_normal(const Shape& shape, RngKey key);
/// He et al. 2015: normal with deviation sqrt(2 / fan_in) for a weight [out, in].
Tensor he_normal(const Shape& shape, RngKey key);
/// Random directions [count, width] for positive random features (Choromanski et al., arXiv 2009.14794): orthogonal
/// within each block of `width` rows, each as long as a standard normal vector (chi distributed). A buffer, not
/// trained.
Tensor orthogonal_directions(std::int64_t count, std::int64_t width, RngKey key);

}  // namespace tally::nn
