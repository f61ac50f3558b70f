#include "tally/nn/attention/position_softmax.h"

#include <algorithm>
#include <cmath>

#include "tally/ops/tensor/shape.h"
#include "tally/ops/tensor/softmax.h"

namespace tally::nn {

void PositionSoftmaxMemory::save(std::string& to) const {
  write_values(to, std::span<const double>(kept.sums));
  write_values(to, std::span<const double>(kept.maximum));
}

void PositionSoftmaxMemory::load(ByteReader& bytes, std::int64_t events) {
  bytes.read(std::span(kept.sums));
  bytes.read(std::span(kept.maximum));
  const auto finite = [](double x) { return std::isfinite(x); };
  check<IoError>(std::all_of(kept.sums.begin(), kept.sums.end(), finite) &&
                     (events == 0 || std::all_of(kept.maximum.begin(), kept.maximum.end(), finite)),
                 "attention with keys softmaxed over positions", "the saved state has a number that is not finite");
}

Var PositionSoftmaxMemory::step(const Var& q, const Var& k, const Var& v) {
  const Tensor query = q.value().contiguous(), key = k.value().contiguous(), value = v.value().contiguous();
  Tensor row({1, query.dim(1) / kept.width * kept.value_width});
  ops::position_softmax_step(kept, query.span<float>(), key.span<float>(), value.span<float>(),
                             row.mutable_span<float>());
  return Var(row);
}

namespace {

Var by_heads(const Var& x, std::int64_t heads, Var (*function)(const Var&)) {
  return ops::reshape(function(ops::reshape(x, Shape{x.dim(0) * heads, x.dim(1) / heads})), x.shape());
}

}  // namespace

Var softmax_of_heads(const Var& x, std::int64_t heads) { return by_heads(x, heads, ops::softmax); }
Var log_softmax_of_heads(const Var& x, std::int64_t heads) { return by_heads(x, heads, ops::log_softmax); }

}  // namespace tally::nn
