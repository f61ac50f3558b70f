#include "tally/nn/histogram_attention.h"

#include <cmath>

#include "tally/nn/initializers.h"
#include "tally/ops/matmul.h"
#include "tally/ops/shape.h"

namespace tally::nn {

HistogramSelfAttention HistogramSelfAttention::make(const HistogramSelfAttentionOptions& options, RngKey key) {
  check<ValueError>(options.codebooks >= 1 && options.width >= 1, "HistogramSelfAttention",
                    "needs at least one codebook and a width; got ", options.codebooks, " and ", options.width);
  check<ValueError>(options.decay >= 0 && std::isfinite(options.decay), "HistogramSelfAttention",
                    "needs a decay of at least 0; got ", options.decay);
  check<ValueError>(options.decay > 0 || !options.learn_decay, "HistogramSelfAttention",
                    "needs a decay above 0 to begin its training from; got ", options.decay);
  const std::int64_t b = options.codebooks, d = options.width;
  // The bound of the released code: Glorot's, with the fans of a tensor [B, D, D] read as a convolution.
  const double bound = std::sqrt(6.0 / static_cast<double>(d * d + b * d));
  const auto projection = [&](const char* name) { return Parameter(uniform({b, d, d}, bound, key.fold_in(name))); };
  HistogramSelfAttention attention{.query = projection("query"),
                                   .key = projection("key"),
                                   .value = projection("value"),
                                   .log_decay = {},
                                   .mask = options.mask,
                                   .assignment = options.assignment,
                                   .window = options.window,
                                   .decay = options.decay};
  if (options.learn_decay) attention.log_decay = Parameter(Tensor::full({1}, std::log(options.decay)));
  return attention;
}

HistogramTables HistogramSelfAttention::tables(const Var& codebooks) const {
  const std::int64_t b = codebooks.dim(0), w = codebooks.dim(1), d = codebooks.dim(2);
  const Var queries = ops::matmul(codebooks, query), keys = ops::matmul(codebooks, key);
  return {ops::matmul(queries, keys, {.transpose_b = true}),
          ops::reshape(ops::matmul(codebooks, value), Shape{b * w, d})};
}

Var HistogramSelfAttention::operator()(const Tensor& codes, const Var& logits, const HistogramTables& tables,
                                       const Offsets& offsets) const {
  Var rate = log_decay;
  if (!rate.defined() && decay > 0) rate = Var(Tensor::full({1}, std::log(decay), tables.inner.dtype()));
  return ops::histogram_attention(codes, logits, tables.inner, tables.values, rate, offsets,
                                  {.mask = mask, .assignment = assignment, .window = window});
}

double HistogramSelfAttention::current_decay() const {
  return log_decay.defined() ? std::exp(log_decay.value().item()) : decay;
}

}  // namespace tally::nn
