#include "tally/nn/layers.h"

#include "tally/nn/buffer_updates.h"
#include "tally/nn/initializers.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/norms/layer_norm.h"
#include "tally/ops/norms/rms_norm.h"
#include "tally/ops/tensor/embedding.h"
#include "tally/ops/tensor/reduce.h"

namespace tally::nn {

Linear Linear::make(const LinearOptions& options, RngKey key) {
  check<ValueError>(options.in > 0 && options.out > 0, "Linear", "needs sizes above 0; got in ", options.in, ", out ",
                    options.out);
  const Shape shape{options.out, options.in};
  Linear linear;
  linear.weight = Parameter(options.deviation > 0 ? normal(shape, options.deviation, key) : xavier_uniform(shape, key));
  if (options.bias) linear.bias = Parameter(Tensor::zeros({options.out}));
  return linear;
}

Var Linear::operator()(const Var& x, ops::Activation activation) const {
  return ops::linear(x, weight, bias, {.activation = activation});
}

Embedding Embedding::make(const EmbeddingOptions& options, RngKey key) {
  check<ValueError>(options.count > 0 && options.width > 0, "Embedding", "needs sizes above 0; got count ",
                    options.count, ", width ", options.width);
  return {Parameter(normal({options.count, options.width}, options.deviation, key))};
}

Var Embedding::operator()(const Tensor& ids, double scale) const {
  return ops::embedding(table, ids, {.scale = scale});
}

LayerNorm LayerNorm::make(const NormOptions& options) {
  check<ValueError>(options.width > 0, "LayerNorm", "needs a width above 0; got ", options.width);
  return {Parameter(Tensor::full({options.width}, 1)), Parameter(Tensor::zeros({options.width})), options.epsilon};
}

Var LayerNorm::operator()(const Var& x) const { return ops::layer_norm(x, weight, bias, {.epsilon = epsilon}); }

RmsNorm RmsNorm::make(const NormOptions& options) {
  check<ValueError>(options.width > 0, "RmsNorm", "needs a width above 0; got ", options.width);
  return {Parameter(Tensor::full({options.width}, 1)), options.epsilon};
}

Var RmsNorm::operator()(const Var& x) const { return ops::rms_norm(x, weight, {.epsilon = epsilon}); }

BatchNorm BatchNorm::make(const BatchNormOptions& options) {
  check<ValueError>(options.width > 0 && options.epsilon >= 0 && options.momentum >= 0 && options.momentum <= 1,
                    "BatchNorm", "needs a width above 0, an epsilon of at least 0 and a momentum in [0, 1]; got ",
                    options.width, ", ", options.epsilon, " and ", options.momentum);
  const Shape shape{options.width};
  return {Parameter(Tensor::full(shape, 1)),
          Parameter(Tensor::zeros(shape)),
          Buffer(Tensor::zeros(shape)),
          Buffer(Tensor::full(shape, 1)),
          options.epsilon,
          options.momentum};
}

Var BatchNorm::operator()(const Var& x, const Context& context) const {
  check<ShapeError>(x.rank() == 2 && x.dim(1) == weight.shape()[0] && (!context.training || x.dim(0) >= 2), "BatchNorm",
                    "needs x [rows, ", weight.shape()[0], "], of at least two rows in training; got ", x.shape());
  const auto normalized = [&](const Var& centred, const Var& variance) {
    return centred / ops::sqrt(variance + epsilon) * weight.var() + bias.var();
  };
  if (!context.training) return normalized(x - running_mean.value(), running_variance.value());
  const ops::ReduceOptions rows{.dims = {0}};
  const Var mean = ops::mean(x, rows), centred = x - mean, variance = ops::mean(ops::square(centred), rows);
  if (context.updates != nullptr && context.first_row == 0) {
    const auto count = static_cast<double>(x.dim(0));
    const auto post = [&](const Buffer& buffer, const Var& now, double factor) {
      context.updates->changes.push_back(
          {buffer.value(), now.value().to(DType::f64).contiguous(), 1 - momentum, momentum * factor});
    };
    post(running_mean, mean, 1);
    post(running_variance, variance, count / (count - 1));
  }
  return normalized(centred, variance);
}

Var Dropout::operator()(const Var& x, const Context& context) const { return ops::dropout(x, options(context)); }

ops::DropoutOptions Dropout::options(const Context& context) const {
  return {.rate = context.training ? rate : 0,
          .key = context.key,
          .first_row = static_cast<std::uint64_t>(context.first_row)};
}

Var DropPath::operator()(const Var& x, const Offsets& offsets, const Context& context) const {
  check<ValueError>(rate >= 0 && rate < 1, "drop path", "needs a rate in [0, 1); got ", rate);
  if (!context.training || rate == 0) return x;
  std::vector<double> factors;
  for (std::int64_t i = 0; i < offsets.count(); ++i) {
    const double drawn = uniform(context.key, static_cast<std::uint64_t>(context.first_row + offsets.at(i)), 0);
    factors.resize(static_cast<std::size_t>(offsets.at(i + 1)), drawn < rate ? 0 : 1 / (1 - rate));
  }
  return x * Var(Tensor::from(factors, {x.dim(0), 1}).to(x.dtype()));
}

}  // namespace tally::nn
