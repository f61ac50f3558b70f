#include "tally/nn/attention/lambda.h"

#include <algorithm>
#include <cmath>

#include "tally/nn/initializers.h"
#include "tally/ops/attention/local_mixing.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/matmul.h"
#include "tally/ops/tensor/shape.h"

namespace tally::nn {

LambdaKind LambdaKind::make(const LambdaOptions& options, const AttentionSettings& settings, RngKey key) {
  check<ValueError>(options.window >= 1, "lambda attention", "needs a window of at least 1; got ", options.window);
  const std::int64_t width = settings.width, d = width / settings.heads;
  const auto projection = [&](std::string_view name, std::int64_t out) {
    return Linear::make({.in = width, .out = out, .deviation = settings.deviation}, key.fold_in(name));
  };
  const bool causal = settings.mask == ops::AttentionMask::causal;
  // By default the products with a query of root mean square 1 are about as large as it.
  const double deviation = settings.deviation > 0 ? settings.deviation : 1 / std::sqrt(static_cast<double>(d));
  LambdaKind kind{.query = projection("query", width),
                  .key = projection("key", d),
                  .value = projection("value", d),
                  .output = projection("output", width),
                  .query_norm = {},
                  .value_norm = {},
                  .positions = Parameter(normal({causal ? options.window : checked_multiply(2, options.window) - 1, d},
                                                deviation, key.fold_in("positions"))),
                  .heads = settings.heads,
                  .mask = settings.mask};
  if (options.norm == LambdaNorm::rms) kind.query_norm = kind.value_norm = RmsNorm::make({.width = d});
  return kind;
}

LambdaKind::Projected LambdaKind::project(const Var& queries, const Var& source) const {
  const Var q = query(queries), v = value(source);
  const std::int64_t d = v.dim(1);
  const bool normed = query_norm.weight.defined();
  const Var by_heads = ops::reshape(q, Shape{q.dim(0) * heads, d}), asked = normed ? query_norm(by_heads) : by_heads;
  return {.q = ops::reshape(asked, q.shape()),
          .k = key(source),
          .v = normed ? value_norm(v) : v,
          .weights = ops::reshape(ops::matmul(asked, positions, {.transpose_b = true}),
                                  Shape{q.dim(0), heads * positions.shape()[0]})};
}

Var LambdaKind::operator()(const Var& queries, const Var& source, const Sequence& sequence, const Context&) const {
  const Projected x = project(queries, source);
  const Var content =
      ops::position_softmax_attention(x.q, x.k, x.v, sequence.offsets, {.heads = heads, .key_heads = 1, .mask = mask});
  const std::int64_t ahead = mask == ops::AttentionMask::causal ? 0 : positions.shape()[0] / 2;
  return output(content + ops::local_mixing(x.weights, x.v, sequence.offsets, {.heads = heads, .ahead = ahead}));
}

std::string LambdaKind::layout() const {
  return tally::detail::join(" of ", heads, " heads, ", positions.shape()[0], " positions");
}

void LambdaKind::State::save(std::string& to) const {
  content.save(to);
  write_values(to, std::span<const float>(values));
}

void LambdaKind::State::load(ByteReader& bytes, std::int64_t events) {
  content.load(bytes, events);
  bytes.read(std::span(values));
  check<IoError>(std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); }),
                 "lambda attention", "the saved state has a value that is not finite");
}

LambdaKind::State LambdaKind::initial_state() const {
  const std::int64_t d = positions.shape()[1];
  return {{ops::position_softmax_state(1, d, d)},
          std::vector<float>(static_cast<std::size_t>((positions.shape()[0] - 1) * d))};
}

Var LambdaKind::step(State& state, const Var& queries, const Var& source, const Event& event) const {
  const Projected x = project(queries, source);
  const Tensor v = x.v.value().contiguous(), weights = x.weights.value().contiguous();
  Tensor row = state.content.step(x.q, x.k, x.v).value();
  const std::int64_t taps = positions.shape()[0], d = positions.shape()[1], kept = taps - 1;
  for (std::int64_t i = 0; i <= std::min(kept, event.place); ++i) {
    const float* seen = i == 0 ? v.data<float>() : state.values.data() + (event.place - i) % kept * d;
    for (std::int64_t h = 0; h < heads; ++h) {
      const float weight = weights.data<float>()[h * taps + i];
      for (std::int64_t j = 0; j < d; ++j) row.mutable_data<float>()[h * d + j] += weight * seen[j];
    }
  }
  if (kept > 0) std::copy_n(v.data<float>(), d, state.values.data() + event.place % kept * d);
  return output(Var(row));
}

}  // namespace tally::nn
