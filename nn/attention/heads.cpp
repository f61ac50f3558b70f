#include "tally/nn/attention/heads.h"

#include "tally/ops/tensor/shape.h"

namespace tally::nn {

Var normed_heads(const RmsNorm& norm, const Var& x, std::int64_t heads) {
  return ops::reshape(norm(ops::reshape(x, Shape{x.dim(0) * heads, x.dim(1) / heads})), x.shape());
}

}  // namespace tally::nn
