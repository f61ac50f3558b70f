#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tally/nn/layers.h"
#include "tally/ops/softmax_attention.h"

// Attentions by name: what a config chooses and a study compares. To add one, write its op and a row of the table in
// attention_kinds.cpp.

namespace tally::nn {

struct AttentionSettings {
  std::int64_t width = 0;
  std::int64_t heads = 1;
  double dropout = 0;  ///< of attention probabilities, where there are any: softmax, softmax_materialized, local
  ops::AttentionMask mask = ops::AttentionMask::causal;
  std::int64_t window = 0;            ///< of softmax: only so many rows are visible; 0 for all
  std::int64_t block = 32;            ///< rows of local's window, of lsh's chunks and of sinkhorn's blocks
  std::int64_t random_features = 64;  ///< of linear_favor
  std::int64_t buckets = 8;           ///< of lsh, an even number
  std::int64_t rounds = 1;            ///< of lsh's hashing
  std::int64_t projected_keys = 32;   ///< of linformer
  std::int64_t max_length = 0;        ///< longest sequence, which linformer and sinkhorn need to know
};

/// The attention itself, between the projections of queries, keys and values and that of the output, with what it needs
/// of its own.
struct AttentionKind {
  std::string name;  ///< of attention_kinds()
  AttentionSettings settings;
  Parameter key_projection, value_projection;  ///< linformer: [projected_keys, max_length]
  Buffer directions;                           ///< linear_favor: [random_features, d]; lsh: [rounds, buckets / 2, d]
  std::optional<Linear> sorter;                ///< sinkhorn: logits of a block from its first row
  static void fields(auto& self, auto&& visit) {
    visit("name", self.name);
    visit("settings", self.settings);
    visit("key_projection", self.key_projection);
    visit("value_projection", self.value_projection);
    visit("directions", self.directions);
    visit("sorter", self.sorter);
  }
  /// Throws ConfigError for an unknown name (naming the nearest), ValueError for settings that do not fit, such as a
  /// causal mask for an attention that has no causal form.
  static AttentionKind make(const std::string& name, const AttentionSettings& settings, RngKey key);
  /// [T, width] of queries, keys and values [T, width]. Where keys are the queries (lsh) `k` is not read.
  Var operator()(const Var& q, const Var& k, const Var& v, const Offsets& offsets, const Context& context) const;
  /// Are keys the queries, so that a projection of keys would not be used?
  bool shares_queries() const;
};

/// A row of the table of attentions.
struct AttentionKindEntry {
  std::string name;
  std::string summary;
  bool causal = true;                                               ///< is there a causal form?
  bool shares_queries = false;                                      ///< are the keys made from the queries?
  void (*prepare)(AttentionKind& attention, RngKey key) = nullptr;  ///< makes what it needs of its own; may be null
  Var (*call)(const AttentionKind& attention, const Var& q, const Var& k, const Var& v, const Offsets& offsets,
              const Context& context) = nullptr;
};
const std::vector<AttentionKindEntry>& attention_kinds();

}  // namespace tally::nn
