#pragma once

#include <memory>
#include <string>

#include "tally/core/options/options.h"
#include "tally/nn/attention/attention.h"
#include "tally/nn/histogram_attention.h"
#include "tally/nn/quantization.h"

namespace tally::nn {

struct HistogramOptions {
  std::int64_t codebooks = 8;
  std::int64_t codewords = 16;
  double decay = 0;
  static void keys(auto& o, auto&& key) {
    key("codebooks", o.codebooks, at_least(1), "codebooks of a layer");
    key("codewords", o.codewords, at_least(1), "codewords of each codebook");
    key("counts_decay", o.decay, at_least(0), "an event k places back counts exp(-counts_decay k); 0: all count alike");
  }
};

/// LISA's attention as a kind: rows of the source are quantized by codebooks of the layer's own, and a row attends to
/// the tally of the codewords so far. The query is the row's own codeword, so queries are not read.
struct HistogramKind {
  VectorQuantizer quantizer;
  HistogramSelfAttention histogram;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("quantizer", self.quantizer);
    visit("histogram", self.histogram);
  }
  static HistogramKind make(const HistogramOptions& options, const AttentionSettings& settings, RngKey key);
  Var operator()(const Var& queries, const Var& source, const Sequence& sequence, const Context& context) const;
  std::string layout() const;

  /// A tally of codewords; tables of the parameters as they were are shared by all copies.
  struct State {
    struct Tables {
      ops::VectorQuantizationTables quantizer;
      ops::HistogramReader reader;
    };
    std::shared_ptr<const Tables> tables;
    ops::HistogramState tally;

    std::size_t heap_bytes() const { return tally.bytes() - sizeof(tally); }
    void save(std::string& to) const { tally.write(to); }
    void load(ByteReader& bytes, std::int64_t events) {
      tally = ops::HistogramState::read(bytes, tally.layout(), events);
    }
  };
  bool has_state() const;
  State initial_state() const;
  Var step(State& state, const Var& query, const Var& source, const Event& event) const;
};

}  // namespace tally::nn
