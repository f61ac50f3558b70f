#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tally/nn/attention/attention.h"
#include "tally/ops/attention/softmax_attention.h"

// Attentions by name: what a config chooses and a study compares. To add one, write the kind (nn/attention/attention.h)
// and a row of the table: in attention_kinds.cpp, or in a program of your own on a copy of the table.

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
  std::int64_t codebooks = 8;         ///< of histogram
  std::int64_t codewords = 16;        ///< of each codebook of histogram
  double decay = 0;                   ///< of histogram's counts, per row
  std::int64_t max_length = 0;        ///< longest sequence, which linformer and sinkhorn need to know
  double deviation = 0;               ///< of projections' normal initial weights; 0 means Xavier uniform
};

/// A row of the table of attentions.
struct AttentionKindEntry {
  std::string name;
  std::string summary;
  bool causal = true;  ///< is there a causal form?
  bool smooth = true;  ///< false: gradients pass straight through codes, which no numeric derivative sees
  /// Made with the key of the layer: the projections' and the core's are folded in by name.
  std::function<Attention(const AttentionKindEntry& entry, const AttentionSettings& settings, RngKey key)> make = {};
};

/// A table of attentions, a value.
class AttentionKinds {
 public:
  /// Throws ValueError for a name that is there.
  void add(AttentionKindEntry entry);
  /// Throws ConfigError for a name that is not there, naming the nearest.
  const AttentionKindEntry& at(const std::string& name) const;
  /// Throws as at(), and ValueError for settings that do not fit, such as a causal mask for an attention that has no
  /// causal form.
  Attention make(const std::string& name, const AttentionSettings& settings, RngKey key) const;

  auto begin() const { return entries_.begin(); }
  auto end() const { return entries_.end(); }

 private:
  std::vector<AttentionKindEntry> entries_;
};

/// Those of the tree.
const AttentionKinds& attention_kinds();

}  // namespace tally::nn
