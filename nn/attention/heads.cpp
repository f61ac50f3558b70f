#include "tally/nn/attention/heads.h"

#include <cmath>

#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/norms/rms_norm.h"
#include "tally/ops/tensor/shape.h"

namespace tally::nn {
namespace {

Var parts(const Var& x, std::int64_t heads) { return ops::reshape(x, Shape{x.dim(0) * heads, x.dim(1) / heads}); }

}  // namespace

Var unit_heads(const Var& x, std::int64_t heads, double epsilon) {
  const auto d = static_cast<double>(x.dim(1) / heads);
  const Var unit = ops::rms_norm(parts(x, heads), {}, {.epsilon = epsilon / d}) * (1 / std::sqrt(d));
  return ops::reshape(unit, x.shape());
}

Var normed_heads(const RmsNorm& norm, const Var& x, std::int64_t heads) {
  return ops::reshape(norm(parts(x, heads)), x.shape());
}

}  // namespace tally::nn
