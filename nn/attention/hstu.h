#pragma once

#include <string>

#include "tally/core/options/options.h"
#include "tally/nn/attention/attention.h"
#include "tally/nn/layers.h"
#include "tally/ops/attention/pointwise_attention.h"

namespace tally::nn {

struct HstuOptions {
  ops::PointwiseNormalizer normalizer = ops::PointwiseNormalizer::visible;
  static void keys(auto& o, auto&& key) {
    key("hstu_normalizer", o.normalizer,
        "what a row's sum is divided by: the number of rows that it sees (`visible`) or the model's longest length "
        "(`window`, which the released code divides by)");
  }
};

/// HSTU's layer (Zhai et al., arXiv 2402.17152):
///
///   q, u = silu(queries W), k, v = silu(source W)
///   out  = W_o (norm(pointwise_attention(q, k, v)) * u) + b
///
/// with a layer norm without weights over all heads. Its bias of relative positions and times is left out: order comes
/// from the positions of the layer's input. Quadratic, it has no state of a fixed size.
struct HstuKind {
  Linear query, key, value, gate, output;
  std::int64_t heads = 1;
  ops::AttentionMask mask = ops::AttentionMask::causal;
  std::int64_t window = 0;  ///< what sums are divided by; 0: the number of visible rows
  static constexpr void fields(auto& self, auto&& visit) {
    visit("query", self.query);
    visit("key", self.key);
    visit("value", self.value);
    visit("gate", self.gate);
    visit("output", self.output);
    visit("heads", self.heads);
    visit("mask", self.mask);
    visit("window", self.window);
  }
  /// Throws ValueError for the normalizer `window` without a longest length.
  static HstuKind make(const HstuOptions& options, const AttentionSettings& settings, RngKey key);
  Var operator()(const Var& queries, const Var& source, const Sequence& sequence, const Context& context) const;
  std::string layout() const;
};

}  // namespace tally::nn
