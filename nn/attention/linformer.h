#pragma once

#include <string>

#include "tally/core/options/options.h"
#include "tally/nn/attention/attention.h"

namespace tally::nn {

struct LinformerOptions {
  std::int64_t projected_keys = 32;
  static void keys(auto& o, auto&& key) {
    key("projected_keys", o.projected_keys, at_least(1), "keys that those of a sequence are projected to");
  }
};

/// Softmax over projected keys (ops/attention/linformer_attention.h), which has no causal form: a core of MultiHead.
struct LinformerCore {
  static constexpr bool kSharesQueries = false;
  std::int64_t heads = 1;
  Parameter key_projection, value_projection;  ///< [projected_keys, max_length]
  static constexpr void fields(auto& self, auto&& visit) {
    visit("heads", self.heads);
    visit("key_projection", self.key_projection);
    visit("value_projection", self.value_projection);
  }
  static LinformerCore make(const LinformerOptions& options, const AttentionSettings& settings, RngKey key);
  Var operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence, const Context& context) const;
  std::string layout() const;
};

}  // namespace tally::nn
