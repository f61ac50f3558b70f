#pragma once

#include <span>
#include <utility>

#include "tally/core/words.h"
#include "tally/nn/layers.h"
#include "tally/ops/memory/product_key_memory.h"

namespace tally::nn {

/// What a memory's queries, and perhaps its keys, are brought to.
enum class MemoryNorm {
  none,
  layer,  ///< layer norm of each head's query
  unit,   ///< each half of a query and each sub-key of length 1, scores times a trained scale of the head
};
constexpr auto words(MemoryNorm) {
  using W = Word<MemoryNorm>;
  return std::array{W{"none", MemoryNorm::none}, W{"layer", MemoryNorm::layer}, W{"unit", MemoryNorm::unit}};
}

/// docs/elastic.md has the reasons for the defaults.
struct ProductKeyMemoryOptions {
  std::int64_t in = 0;     ///< width of the rows that ask
  std::int64_t width = 0;  ///< of the values
  std::int64_t sub_keys = 64;
  std::int64_t key_width = 64;
  std::int64_t heads = 1;
  std::int64_t slots = 32;  ///< k: that each head reads
  ops::MemoryWeights weights = ops::MemoryWeights::scaled_softmax;
  ops::MemoryGate gate = ops::MemoryGate::none;
  ops::MemoryOutput output = ops::MemoryOutput::rows;
  MemoryNorm norm = MemoryNorm::layer;
  double query_dropout = 0;
  double deviation = 0;    ///< of the values' normal initial rows; 0 for width^-1/2
  bool own_values = true;  ///< false: whoever holds the memory gives it values that are shared with others
};

/// Product-key memory (Lample et al., arXiv 1907.05242; docs/elastic.md) over ops::product_key_memory: rows ask by a
/// linear query network, and get k rows of the values for each head, chosen and weighted by their scores: each by
/// itself, or their gated sum.
struct ProductKeyMemory {
  Linear query;
  LayerNorm query_norm;   ///< of MemoryNorm::layer
  Parameter score_scale;  ///< [heads, 1], of MemoryNorm::unit
  Parameter keys;         ///< [heads, 2, n, w]
  Parameter values;       ///< [n^2, width]; absent where they are given
  Linear gate;            ///< of the rows that ask, for the gate's logits
  Buffer slot_reads;      ///< i64 [n^2] by all heads in training since the last revival
  Buffer slot_weights;    ///< f64 [n^2] the weights of these reads
  Buffer sub_key_reads;   ///< i64 [heads, 2, n]
  Buffer query_norms;     ///< f64 [2] sum of the lengths of heads\' queries, and their number
  Dropout query_dropout;
  MemoryNorm norm = MemoryNorm::layer;
  ops::ProductKeyMemoryOptions options;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("query", self.query);
    visit("query_norm", self.query_norm);
    visit("score_scale", self.score_scale);
    visit("keys", self.keys);
    visit("values", self.values);
    visit("gate", self.gate);
    visit("slot_reads", self.slot_reads);
    visit("slot_weights", self.slot_weights);
    visit("sub_key_reads", self.sub_key_reads);
    visit("query_norms", self.query_norms);
    visit("query_dropout", self.query_dropout);
    visit("norm", self.norm);
    visit("options", self.options);
  }
  /// Throws ValueError for sizes below 1, k above n^2, an odd width of keys, and a gate of separate rows.
  static ProductKeyMemory make(const ProductKeyMemoryOptions& options, RngKey key);

  std::int64_t num_slots() const { return keys.shape()[2] * keys.shape()[2]; }

  /// For rows [T, in]: output [T, width] pooled, or [T, heads * k, width]. In training it posts what was read. Throws
  /// ValueError when it has no values of its own, and for queries that are not finite.
  ops::ProductKeyMemoryResult operator()(const Var& rows, const Context& context) const;
  /// With values [n^2, width] that it shares with others.
  ops::ProductKeyMemoryResult operator()(const Var& rows, const Var& shared, const Context& context) const;

  /// Begins dead slots anew, from the reads since the last revival: a sub-key that chose no slot that was read becomes
  /// one that did, drawn in proportion to its reads, with noise of a tenth of its size; so does the value of a slot
  /// that was not read. Reads are then counted from 0. Returns the number of sub-keys and values; does nothing before
  /// the first read.
  std::int64_t revive(RngKey key);

  /// Mean length of a head's query since the last revival, 0 before the first, and of a sub-key: both grow, or keys
  /// shrink to nothing, where retrieval collapses.
  double mean_query_norm() const;
  double mean_key_norm() const;

 private:
  /// Queries [T, heads * 2 w] and keys as the op takes them.
  std::pair<Var, Var> queries_and_keys(const Var& rows, const Context& context) const;
  void post_reads(const Var& queries, const ops::ProductKeyMemoryResult& read, const Context& context) const;
};

/// Rows [count, width] whose `reads` [count] are 0 become copies of others, drawn in proportion to their reads, with
/// normal noise of a tenth of their root mean square. Returns how many; nothing happens where nothing was read.
std::int64_t revive_rows(Tensor& rows, std::span<const std::int64_t> reads, RngKey key);

}  // namespace tally::nn
