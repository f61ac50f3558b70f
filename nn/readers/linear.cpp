#include "tally/nn/readers/linear.h"

#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/lookup/causal_lookup.h"
#include "tally/ops/lookup/outer_sums.h"
#include "tally/ops/lookup/symmetric_lookup.h"
#include "tally/ops/tensor/shape.h"

namespace tally::nn {
namespace {

/// Bias of a learned decay at first: a = sigmoid(6) leaves 0.9975 of the rows before each row, half after 280.
constexpr double kFirstDecayBias = 6;

/// C q, of features [T, k] with factors [T] of each step, which may be absent.
Var look_up(const Var& features, const Var& log_decay, const Var& gain, const Var& queries, const Lookups& lookups) {
  const Offsets whole = queries_of_whole_documents(lookups);
  if (whole.count() > 0) {
    return ops::symmetric_lookup(ops::outer_sums(features, log_decay, gain, Var(), lookups.offsets), queries, whole);
  }
  return ops::causal_lookup(queries, features, features, log_decay, gain, lookups.places, lookups.offsets);
}

/// One number a row: x w + b.
Var scores(const Linear& layer, const Var& rows) { return ops::reshape(layer(rows), {rows.dim(0)}); }

}  // namespace

Var LinearReader::operator()(const Var& rows, const Var& queries, const Lookups& lookups, const Context&) const {
  return normalized(look_up(rows, Var(), Var(), queries, lookups), normalization, lookups);
}

GatedLinearReader GatedLinearReader::make(const GatedLinearReaderOptions& options, std::int64_t width, RngKey key) {
  GatedLinearReader reader{.feature = Linear::make({.in = width, .out = width}, key.fold_in("feature")),
                           .decay = {},
                           .gain = {},
                           .normalization = options.answers.normalization};
  if (options.decay == ReaderGate::learned) {
    reader.decay = Linear::make({.in = width, .out = 1}, key.fold_in("decay"));
    reader.decay.bias.mutable_value().fill(kFirstDecayBias);
  }
  if (options.gain == ReaderGate::learned) reader.gain = Linear::make({.in = width, .out = 1}, key.fold_in("gain"));
  return reader;
}

Var GatedLinearReader::operator()(const Var& rows, const Var& queries, const Lookups& lookups, const Context&) const {
  const Var features = feature(rows, ops::Activation::sigmoid) * rows;
  // log sigmoid(x), which keeps its digits where sigmoid(x) is nearly 1.
  const Var log_decay = decay.weight.defined() ? -ops::softplus(-scores(decay, rows)) : Var();
  const Var gains = gain.weight.defined() ? ops::sigmoid(scores(gain, rows)) : Var();
  return normalized(look_up(features, log_decay, gains, queries, lookups), normalization, lookups);
}

}  // namespace tally::nn
