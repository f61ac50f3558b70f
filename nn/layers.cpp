#include "tally/nn/layers.h"

#include "tally/nn/initializers.h"
#include "tally/ops/norms/layer_norm.h"
#include "tally/ops/norms/rms_norm.h"
#include "tally/ops/tensor/embedding.h"

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

Var Dropout::operator()(const Var& x, const Context& context) const { return ops::dropout(x, options(context)); }

ops::DropoutOptions Dropout::options(const Context& context) const {
  return {.rate = context.training ? rate : 0,
          .key = context.key,
          .first_row = static_cast<std::uint64_t>(context.first_row)};
}

}  // namespace tally::nn
