#include "tally/ops/losses/loss_tokens.h"

#include <cmath>

namespace tally::ops {
namespace {

void check_integer(std::string_view op, std::string_view what, const Tensor& ids) {
  check<DTypeError>(ids.dtype() == DType::i32 || ids.dtype() == DType::i64, op, "needs ", what, " of i32 or i64; got ",
                    ids.dtype());
}

/// `[2, 5]` for element i of a tensor.
std::string position(const Shape& shape, std::int64_t i) {
  std::vector<std::int64_t> at(static_cast<std::size_t>(shape.rank()));
  for (int d = shape.rank() - 1; d >= 0; --d) {
    at[static_cast<std::size_t>(d)] = i % shape[d];
    i /= shape[d];
  }
  return detail::join(Shape(at));
}

}  // namespace

Tensor checked_ids(std::string_view op, std::string_view what, const Tensor& ids, std::int64_t bound) {
  check_integer(op, what, ids);
  Tensor wide = ids.to(DType::i64).contiguous();
  const std::int64_t* id = wide.data<std::int64_t>();
  for (std::int64_t i = 0; i < wide.numel(); ++i) {
    if (id[i] >= 0 && id[i] < bound) continue;
    fail<IndexError>(op, "needs ", what, " in [0, ", bound, "); got ", id[i], " at position ",
                     position(ids.shape(), i));
  }
  return wide;
}

LossTokens LossTokens::select(std::string_view op, const Tensor& targets, const Tensor& weights, double factor,
                              std::int64_t tokens, std::int64_t items) {
  check<ShapeError>(targets.rank() == 1 && targets.dim(0) == tokens, op, "needs one target for each of ", tokens,
                    " tokens; got targets ", targets.shape());
  check_integer(op, "targets", targets);
  check<ValueError>(std::isfinite(factor), op, "needs a finite reduction scale; got ", factor);
  Tensor wide_weights;
  if (weights.defined()) {
    check<ShapeError>(weights.rank() == 1 && weights.dim(0) == tokens, op, "needs one weight for each of ", tokens,
                      " tokens; got weights ", weights.shape());
    check<DTypeError>(is_floating(weights.dtype()), op, "needs weights of f32 or f64; got ", weights.dtype());
    wide_weights = weights.to(DType::f64).contiguous();
  }
  const Tensor wide = targets.to(DType::i64).contiguous();
  const std::int64_t* target = wide.data<std::int64_t>();
  const double* weight = wide_weights.defined() ? wide_weights.data<double>() : nullptr;
  LossTokens selected;
  for (std::int64_t t = 0; t < tokens; ++t) {
    check<IndexError>(target[t] >= -1 && target[t] < items, op, "needs targets in [0, ", items,
                      ") or -1 (ignored); got ", target[t], " at position ", t);
    const double w = weight == nullptr ? 1 : weight[t];
    check<ValueError>(std::isfinite(w), op, "needs finite weights; got ", w, " at position ", t);
    if (target[t] < 0 || w == 0) continue;
    selected.tokens.push_back(t);
    selected.targets.push_back(target[t]);
    selected.weights.push_back(w * factor);
  }
  return selected;
}

void check_tokens_and_table(std::string_view op, const Tensor& x, const Tensor& table) {
  check<ShapeError>(x.rank() == 2 && table.rank() == 2 && x.dim(1) == table.dim(1), op,
                    "needs x [T, D] and table [I, D] of equal D; got x ", x.shape(), " and table ", table.shape());
  check<DTypeError>(is_floating(x.dtype()) && x.dtype() == table.dtype(), op,
                    "needs x and table of one floating type; got ", x.dtype(), " and ", table.dtype());
}

}  // namespace tally::ops
