#include "tally/nn/histogram_attention.h"

#include <cmath>
#include <limits>

#include "tally/nn/initializers.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/recurrent/decayed_sum.h"
#include "tally/ops/tensor/matmul.h"
#include "tally/ops/tensor/shape.h"
#include "tally/ops/tensor/softmax.h"

namespace tally::nn {
namespace {

Var attend_softly(const Var& logits, const HistogramTables& tables, const Var& rate, const Offsets& offsets) {
  const std::int64_t rows = logits.dim(0), b = logits.dim(1), w = logits.dim(2);
  const Var assignments = ops::softmax(logits);
  const Var tally = ops::decayed_sum(ops::reshape(assignments, {rows, b * w}), rate, offsets);
  const double scale = 1 / std::sqrt(static_cast<double>(tables.values.dim(1)));
  // Products are linear in the query: rows of S are averaged in place of projected codewords.
  const Var products = ops::matmul(ops::transpose(assignments, 0, 1), tables.inner) * scale;  // [B, T, W]
  // H exp(s) over its sum is the softmax of s + log H, whatever the size of s. The least number keeps a codeword that
  // never had a weight away from log 0.
  const double least =
      tally.dtype() == DType::f32 ? std::numeric_limits<float>::min() : std::numeric_limits<double>::min();
  const Var logarithms = ops::log(ops::reshape(tally, {rows, b, w}) + least);
  const Var probabilities = ops::softmax(ops::transpose(products, 0, 1) + logarithms);
  return ops::matmul(ops::reshape(probabilities, {rows, b * w}), tables.values);
}

/// A row of codes u8 or i32 [1, B].
std::vector<std::int32_t> codes_of(const Tensor& codes) {
  const auto take = [&]<class Code>(Code) {
    const auto from = codes.span<Code>();
    return std::vector<std::int32_t>(from.begin(), from.end());
  };
  return codes.dtype() == DType::u8 ? take(std::uint8_t{}) : take(std::int32_t{});
}

/// The assignments of a row whose logits are [1, B, W].
Tensor assignments_of(const Var& logits) { return ops::softmax(logits).value().contiguous(); }

}  // namespace

HistogramSelfAttention HistogramSelfAttention::make(const HistogramSelfAttentionOptions& options, RngKey key) {
  check<ValueError>(options.codebooks >= 1 && options.width >= 1, "HistogramSelfAttention",
                    "needs at least one codebook and a width; got ", options.codebooks, " and ", options.width);
  check<ValueError>(options.decay >= 0 && std::isfinite(options.decay), "HistogramSelfAttention",
                    "needs a decay of at least 0; got ", options.decay);
  check<ValueError>(options.window >= 0, "HistogramSelfAttention", "needs a window of at least 1, or 0 for none; got ",
                    options.window);
  check<ValueError>(options.decay > 0 || !options.learn_decay, "HistogramSelfAttention",
                    "needs a decay above 0 to begin its training from; got ", options.decay);
  check<ValueError>(!options.soft_query || (options.assignment == ops::CodewordAssignment::soft &&
                                            options.mask == ops::AttentionMask::causal && options.window == 0),
                    "HistogramSelfAttention", "needs soft assignments, a causal mask and no window for soft queries");
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
                                   .decay = options.decay,
                                   .soft_query = options.soft_query};
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
  if (soft_query) return attend_softly(logits, tables, rate, offsets);
  return ops::histogram_attention(codes, logits, tables.inner, tables.values, rate, offsets,
                                  {.mask = mask, .assignment = assignment, .window = window});
}

double HistogramSelfAttention::current_decay() const {
  return log_decay.defined() ? std::exp(log_decay.value().item()) : decay;
}

ops::HistogramLayout HistogramSelfAttention::layout(std::int64_t codebooks, std::int64_t codewords) const {
  return {.codebooks = codebooks,
          .words = codewords,
          .window = window,
          .rate = current_decay(),
          .soft = assignment == ops::CodewordAssignment::soft};
}

void HistogramSelfAttention::append(ops::HistogramState& state, const ops::VectorQuantization& row) const {
  if (assignment == ops::CodewordAssignment::soft) {
    state.append_soft(assignments_of(row.logits).span<float>());
  } else {
    state.append(codes_of(row.codes));
  }
}

void HistogramSelfAttention::remove(ops::HistogramState& state, const ops::VectorQuantization& row) const {
  state.remove(codes_of(row.codes));
}

Var HistogramSelfAttention::attend(const ops::HistogramState& state, const ops::VectorQuantization& row,
                                   const ops::HistogramReader& reader) const {
  Tensor attended({1, reader.width()});
  if (soft_query) {
    state.query_soft(assignments_of(row.logits).span<float>(), reader, attended.mutable_span<float>());
  } else {
    state.query(codes_of(row.codes), reader, attended.mutable_span<float>());
  }
  return Var(attended);
}

}  // namespace tally::nn
