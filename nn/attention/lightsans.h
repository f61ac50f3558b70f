#pragma once

#include <string>

#include "tally/core/options/options.h"
#include "tally/nn/attention/attention.h"

namespace tally::nn {

struct LightSansOptions {
  std::int64_t interests = 5;
  static void keys(auto& o, auto&& key) {
    key("k_interests", o.interests, at_least(1), "latent interests that gather a history, its keys and its values");
  }
};

/// The low-rank decomposed attention of LightSANs (Fan et al., SIGIR 2021), a core of MultiHead. In each sequence its
/// keys K and values V [n, width] are gathered into k interests, which its rows read head by head:
///
///   K~ = softmax_over_positions(T_K K^T) K,  V~ = softmax_over_positions(T_V V^T) V        [k, width]
///   out = softmax_over_interests(Q K~^T / sqrt(width of a head)) V~
///
/// Time and memory O(n k). An interest mixes all rows: there is no causal form. What of the released code is not here:
/// docs/elastic.md.
struct LightSansCore {
  static constexpr bool kSharesQueries = false;
  std::int64_t heads = 1;
  Parameter key_interests, value_interests;  ///< T_K, T_V [k, width]
  static constexpr void fields(auto& self, auto&& visit) {
    visit("heads", self.heads);
    visit("key_interests", self.key_interests);
    visit("value_interests", self.value_interests);
  }
  static LightSansCore make(const LightSansOptions& options, const AttentionSettings& settings, RngKey key);
  Var operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence, const Context& context) const;
  std::string layout() const;
};

}  // namespace tally::nn
