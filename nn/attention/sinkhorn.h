#pragma once

#include <string>

#include "tally/core/options/options.h"
#include "tally/nn/attention/attention.h"
#include "tally/nn/layers.h"

namespace tally::nn {

struct SinkhornOptions {
  std::int64_t block = 32;
  static void keys(auto& o, auto&& key) {
    key("attention_block", o.block, at_least(1), "rows of local's window, of lsh's chunks and of sinkhorn's blocks");
  }
};

/// Softmax over one's own and one softly sorted block (ops/attention/sinkhorn_attention.h): a core of MultiHead.
struct SinkhornCore {
  static constexpr bool kSharesQueries = false;
  std::int64_t heads = 1;
  ops::AttentionMask mask = ops::AttentionMask::causal;
  std::int64_t block = 32;  ///< rows
  Linear sorter;            ///< logits of a block from its first row, all that a causal sorting may know of it
  static constexpr void fields(auto& self, auto&& visit) {
    visit("heads", self.heads);
    visit("mask", self.mask);
    visit("block", self.block);
    visit("sorter", self.sorter);
  }
  static SinkhornCore make(const SinkhornOptions& options, const AttentionSettings& settings, RngKey key);
  Var operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence, const Context& context) const;
  std::string layout() const;
};

}  // namespace tally::nn
