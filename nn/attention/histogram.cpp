#include "tally/nn/attention/histogram.h"

#include <array>
#include <charconv>

#include "tally/autograd/tape.h"

namespace tally::nn {
namespace {

/// As std::to_string writes it in the C locale: states of sessions are named so.
std::string six_decimals(double decay) {
  std::array<char, 32> text{};
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), decay, std::chars_format::fixed, 6).ptr};
}

}  // namespace

HistogramKind HistogramKind::make(const HistogramOptions& options, const AttentionSettings& settings, RngKey key) {
  return {.quantizer = VectorQuantizer::make({.codebooks = options.codebooks,
                                              .codewords = options.codewords,
                                              .width = settings.width,
                                              .quantization = {.reconstruct = false}},
                                             key.fold_in("quantizer")),
          .histogram = HistogramSelfAttention::make(
              {.codebooks = options.codebooks, .width = settings.width, .mask = settings.mask, .decay = options.decay},
              key.fold_in("histogram"))};
}

Var HistogramKind::operator()(const Var&, const Var& source, const Sequence& sequence, const Context& context) const {
  const ops::VectorQuantization rows = quantizer(source, context);
  return histogram(rows.codes, rows.logits, histogram.tables(quantizer.codewords()), sequence.offsets);
}

std::string HistogramKind::layout() const {
  const ops::VectorQuantizationOptions& options = quantizer.options.quantization;
  return std::string(options.assignment == ops::CodewordAssignment::soft ? " of soft assignments" : "") +
         (options.residual ? "" : " not residual") + ", decay " + six_decimals(histogram.current_decay()) +
         ", counts window " + std::to_string(histogram.window);
}

bool HistogramKind::has_state() const {
  const bool soft = histogram.assignment == ops::CodewordAssignment::soft;
  return histogram.mask == ops::AttentionMask::causal && !(soft && histogram.window > 0);
}

HistogramKind::State HistogramKind::initial_state() const {
  const Paused paused;
  const HistogramTables tables = histogram.tables(quantizer.codewords());
  return {.tables = std::make_shared<const State::Tables>(
              State::Tables{quantizer.tables(), ops::HistogramReader(tables.inner.value(), tables.values.value())}),
          .tally = ops::HistogramState(histogram.layout(tables.inner.dim(0), tables.inner.dim(1)))};
}

Var HistogramKind::step(State& state, const Var&, const Var& source, const Event&) const {
  const ops::VectorQuantization row = quantizer(source, state.tables->quantizer);
  histogram.append(state.tally, row);
  return histogram.attend(state.tally, row, state.tables->reader);
}

}  // namespace tally::nn
