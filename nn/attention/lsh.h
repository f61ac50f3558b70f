#pragma once

#include <string>

#include "tally/nn/attention/attention.h"
#include "tally/ops/attention/softmax_attention.h"

namespace tally::nn {

/// Softmax within buckets of a random hash (ops/attention/lsh_attention.h), in which keys are the queries: a core of
/// MultiHead.
struct LshCore {
  static constexpr bool kSharesQueries = true;
  std::int64_t heads = 1;
  ops::AttentionMask mask = ops::AttentionMask::causal;
  std::int64_t chunk = 32;  ///< rows
  Buffer directions;        ///< [rounds, buckets / 2, width / heads] that rows are hashed by
  static constexpr void fields(auto& self, auto&& visit) {
    visit("heads", self.heads);
    visit("mask", self.mask);
    visit("chunk", self.chunk);
    visit("directions", self.directions);
  }
  Var operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence, const Context& context) const;
  std::string layout() const;
};

}  // namespace tally::nn
