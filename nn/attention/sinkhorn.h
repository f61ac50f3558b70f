#pragma once

#include <string>

#include "tally/nn/attention/attention.h"
#include "tally/nn/layers.h"
#include "tally/ops/attention/softmax_attention.h"

namespace tally::nn {

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
  Var operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence, const Context& context) const;
  std::string layout() const;
};

}  // namespace tally::nn
