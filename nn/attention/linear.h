#pragma once

#include <string>

#include "tally/core/options/option_tables.h"
#include "tally/nn/attention/attention.h"
#include "tally/ops/attention/normalized_linear_attention.h"

namespace tally::nn {

/// Of linear attention with positive random features.
struct FavorOptions {
  std::int64_t random_features = 64;
  static void keys(auto& o, auto&& key) {
    key("random_features", o.random_features, at_least(1), "random features of a head");
  }
};

/// Linear attention with elu + 1, or with positive random features where it has directions: cores of MultiHead.
struct LinearAttentionCore {
  static constexpr bool kSharesQueries = false;
  std::int64_t width = 0;  ///< of queries, keys and values, all heads together
  std::int64_t heads = 1;
  ops::AttentionMask mask = ops::AttentionMask::causal;
  Buffer directions;  ///< [random_features, width / heads]; absent for elu + 1
  static constexpr void fields(auto& self, auto&& visit) {
    visit("width", self.width);
    visit("heads", self.heads);
    visit("mask", self.mask);
    visit("directions", self.directions);
  }
  static LinearAttentionCore make(const NoOptions& options, const AttentionSettings& settings, RngKey key);
  static LinearAttentionCore make(const FavorOptions& options, const AttentionSettings& settings, RngKey key);
  Var operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence, const Context& context) const;
  std::string layout() const { return " of " + std::to_string(heads) + " heads"; }

  /// Sums over all keys so far, in double: their size does not depend on the history's length.
  struct State {
    ops::NormalizedLinearAttentionState sums;

    std::size_t heap_bytes() const { return sums.heap_bytes(); }
    void save(std::string& to) const;
    void load(ByteReader& bytes, std::int64_t events);
  };
  bool has_state() const { return mask == ops::AttentionMask::causal; }
  State initial_state() const;
  Var step(State& state, const Var& q, const Var& k, const Var& v, const Event& event) const;

 private:
  ops::NormalizedLinearAttentionOptions options() const;
};

}  // namespace tally::nn
