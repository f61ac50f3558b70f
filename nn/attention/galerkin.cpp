#include "tally/nn/attention/galerkin.h"

#include "tally/nn/initializers.h"
#include "tally/ops/attention/linear_attention.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/norms/layer_norm.h"
#include "tally/ops/tensor/shape.h"

namespace tally::nn {
namespace {

/// The layer norm of each head's part [d] of rows [T, heads * d].
Var norm_of_heads(const Var& x, std::int64_t heads, const Parameter& weight, const Parameter& bias) {
  const Var normed = ops::layer_norm(ops::reshape(x, Shape{x.dim(0) * heads, x.dim(1) / heads}));
  return ops::reshape(normed, x.shape()) * weight.var() + bias.var();
}

/// 1 / n of each row, [T, 1].
Tensor inverse_counts(const Offsets& offsets, bool causal, DType dtype) {
  std::vector<double> inverse;
  for (std::int64_t i = 0; i < offsets.count(); ++i) {
    const std::int64_t length = offsets.length(i);
    for (std::int64_t t = 1; t <= length; ++t) inverse.push_back(1 / static_cast<double>(causal ? t : length));
  }
  return Tensor::from(inverse, {offsets.total(), 1}).to(dtype);
}

}  // namespace

GalerkinCore GalerkinCore::make(const AttentionSettings& settings) {
  const Shape shape{settings.width};
  const auto ones = [&] { return Parameter(Tensor::full(shape, 1, DType::f32)); };
  const auto zeros = [&] { return Parameter(Tensor::zeros(shape)); };
  return {settings.width, settings.heads, settings.mask, ones(), zeros(), ones(), zeros()};
}

Var GalerkinCore::operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence, const Context&) const {
  const Var sums =
      ops::linear_attention({.q = q,
                             .k = norm_of_heads(k, heads, key_weight, key_bias),
                             .v = norm_of_heads(v, heads, value_weight, value_bias)},
                            sequence.offsets, {.heads = heads, .mask = mask, .scale = 1, .final_state = false})
          .output;
  return sums * Var(inverse_counts(sequence.offsets, mask == ops::AttentionMask::causal, q.dtype()));
}

Var GalerkinCore::step(State& state, const Var& q, const Var& k, const Var& v, const Event& event) const {
  const std::vector<double> query = q.value().to_doubles(),
                            key = norm_of_heads(k, heads, key_weight, key_bias).value().to_doubles(),
                            value = norm_of_heads(v, heads, value_weight, value_bias).value().to_doubles();
  const auto d = static_cast<std::size_t>(width / heads);
  std::vector<double> found(query.size());
  for (std::size_t i = 0; i < query.size(); ++i) {
    const std::size_t first = i / d * d;
    double* const sums = state.sums.data() + i * d;
    for (std::size_t j = 0; j < d; ++j) {
      sums[j] += key[i] * value[first + j];
      found[first + j] += query[i] * sums[j] / static_cast<double>(event.place + 1);
    }
  }
  return Var(Tensor::from(found, {1, width}).to(DType::f32));
}

MultiHead<GalerkinCore> make_galerkin(const GalerkinOptions& options, const AttentionSettings& settings, RngKey key) {
  auto kind = MultiHead<GalerkinCore>::make(GalerkinCore::make(settings), settings.width, settings.deviation, key);
  const std::int64_t width = settings.width;
  for (const auto& [name, layer] : {std::pair{"initial query", &kind.query}, std::pair{"initial key", &kind.key},
                                    std::pair{"initial value", &kind.value}}) {
    Tensor weight = xavier_uniform({width, width}, key.fold_in(name));
    const std::span<float> values = weight.mutable_span<float>();
    for (float& value : values) value *= static_cast<float>(options.gain);
    for (std::int64_t i = 0; i < width; ++i) {
      values[static_cast<std::size_t>(i * (width + 1))] += static_cast<float>(options.diagonal);
    }
    layer->weight = Parameter(weight);
  }
  return kind;
}

}  // namespace tally::nn
