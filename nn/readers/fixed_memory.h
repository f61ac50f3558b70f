#pragma once

#include "tally/nn/layers.h"
#include "tally/nn/readers/normalization.h"

namespace tally::nn {

struct FixedMemoryOptions {
  std::int64_t contexts = 32;
  bool positions = false;
  ReaderNormalizationOptions answers = {};
  static void keys(auto& o, auto&& key) {
    key("contexts", o.contexts, at_least(1), "K, rows that a document is kept as");
    key("context_positions", o.positions,
        "weigh row t of n for context k by (1 - k/K)(1 - t/n) + (k/K)(t/n); for lookups at the ends of documents "
        "alone");
    key(o.answers);
  }
};

/// Britz, Guan & Luong 2017 (D17-1040): K contexts are filled while a document is encoded, and a lookup reads them
/// alone,
///
///   C_k = sum_t alpha_tk h_t   with alpha_t = softmax_k(W_a h_t)
///   R   = sum_k softmax_k(W_b q) C_k
///
/// with positions alpha_tk times (1 - k/K)(1 - t/n) + (k/K)(t/n), k = 1 ... K, t = 1 ... n. n is not known while a
/// document is still read: with positions, a lookup before its end throws ValueError.
struct FixedMemoryReader {
  Linear memory;  ///< W_a [K, width]
  Linear read;    ///< W_b [K, width]
  bool positions = false;
  ReaderNormalization normalization = ReaderNormalization::rms;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("memory", self.memory);
    visit("read", self.read);
    visit("positions", self.positions);
    visit("normalization", self.normalization);
  }
  static FixedMemoryReader make(const FixedMemoryOptions& options, std::int64_t width, RngKey key);
  Var operator()(const Var& rows, const Var& queries, const Lookups& lookups, const Context& context) const;
};

}  // namespace tally::nn
