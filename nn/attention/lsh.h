#pragma once

#include <string>

#include "tally/core/options/options.h"
#include "tally/nn/attention/attention.h"

namespace tally::nn {

struct LshOptions {
  std::int64_t block = 32;
  std::int64_t buckets = 8;
  std::int64_t rounds = 1;
  static void keys(auto& o, auto&& key) {
    key("attention_block", o.block, at_least(1), "rows of local's window, of lsh's chunks and of sinkhorn's blocks");
    key("lsh_buckets", o.buckets, at_least(2), even(), "buckets of a hash");
    key("lsh_rounds", o.rounds, at_least(1), "hashes");
  }
};

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
  static LshCore make(const LshOptions& options, const AttentionSettings& settings, RngKey key);
  Var operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence, const Context& context) const;
  std::string layout() const;
};

}  // namespace tally::nn
