#pragma once

#include "tally/core/options/option_tables.h"
#include "tally/core/words.h"
#include "tally/nn/layers.h"
#include "tally/nn/readers/normalization.h"

// Linear attention of de Brébisson & Vincent (arXiv 1609.05866). Without the softmax the answer H^T (H q) is C q with
// C = H^T H = sum_t h_t h_t^T: a document is kept as one symmetric matrix, whatever its length, and a lookup costs the
// same for all of them. With gates, C_t = a_t C_{t-1} + b_t f_t f_t^T.
//
// Lookups at the ends of documents go through the matrices themselves (ops/lookup/outer_sums.h, symmetric_lookup.h),
// others through ops/lookup/causal_lookup.h: the same sums in another order.

namespace tally::nn {

/// R = C q with C = H^T H.
struct LinearReader {
  ReaderNormalization normalization = ReaderNormalization::rms;
  static constexpr void fields(auto& self, auto&& visit) { visit("normalization", self.normalization); }
  static LinearReader make(const ReaderNormalizationOptions& options, std::int64_t, RngKey) {
    return {options.normalization};
  }
  Var operator()(const Var& rows, const Var& queries, const Lookups& lookups, const Context& context) const;
};

/// A factor of each step.
enum class ReaderGate {
  none,     ///< 1
  learned,  ///< sigmoid(w . h_t + b)
};
constexpr auto words(ReaderGate) {
  using W = Word<ReaderGate>;
  return std::array{W{"none", ReaderGate::none}, W{"learned", ReaderGate::learned}};
}

struct GatedLinearReaderOptions {
  ReaderGate decay = ReaderGate::none, gain = ReaderGate::none;
  ReaderNormalizationOptions answers = {};
  static void keys(auto& o, auto&& key) {
    key("reader_decay", o.decay, "a of C = a C + b f f^T: what each row leaves of the rows before it; `none` is 1");
    key("reader_gain", o.gain, "b of C = a C + b f f^T: how much of a row is taken; `none` is 1");
    key(o.answers);
  }
};

/// R = C_n q with C_t = a_t C_{t-1} + b_t f_t f_t^T and f_t = sigmoid(W h_t + b) * h_t. The paper's instance has
/// a_t = b_t = 1. A learned a_t begins near 1, so that a document is remembered before forgetting is learned.
struct GatedLinearReader {
  Linear feature;      ///< W, b of f
  Linear decay, gain;  ///< [1, width]; absent where the factor is 1
  ReaderNormalization normalization = ReaderNormalization::rms;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("feature", self.feature);
    visit("decay", self.decay);
    visit("gain", self.gain);
    visit("normalization", self.normalization);
  }
  static GatedLinearReader make(const GatedLinearReaderOptions& options, std::int64_t width, RngKey key);
  Var operator()(const Var& rows, const Var& queries, const Lookups& lookups, const Context& context) const;
};

}  // namespace tally::nn
