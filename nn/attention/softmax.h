#pragma once

#include <string>
#include <vector>

#include "tally/core/options/options.h"
#include "tally/nn/attention/attention.h"
#include "tally/ops/attention/softmax_attention.h"

namespace tally::nn {

/// Of softmax attention.
struct SoftmaxOptions {
  double dropout = 0.1;
  std::int64_t window = 0;
  static void keys(auto& o, auto&& key) {
    key("attn_dropout_prob", o.dropout, rate(), "dropout of attention probabilities");
    key("attention_window", o.window, at_least(0), "rows that are visible, the row itself among them; 0: all");
  }
};
/// The same, with the matrix of scores.
struct MaterializedOptions : SoftmaxOptions {};

/// Of softmax attention to the last rows.
struct LocalOptions {
  double dropout = 0.1;
  std::int64_t block = 32;
  static void keys(auto& o, auto&& key) {
    key("attn_dropout_prob", o.dropout, rate(), "dropout of attention probabilities");
    key("attention_block", o.block, at_least(1), "rows of local's window, of lsh's chunks and of sinkhorn's blocks");
  }
};

/// Softmax attention to all rows, or to those within a window: cores of MultiHead.
struct SoftmaxCore {
  static constexpr bool kSharesQueries = false;
  std::int64_t heads = 1;
  ops::AttentionMask mask = ops::AttentionMask::causal;
  std::int64_t window = 0;    ///< only so many rows are visible; 0 for all
  double dropout = 0;         ///< of probabilities
  std::int64_t width = 0;     ///< of queries, keys and values, all heads together
  bool materialized = false;  ///< with the matrix of scores, for comparison
  static constexpr void fields(auto& self, auto&& visit) {
    visit("heads", self.heads);
    visit("mask", self.mask);
    visit("window", self.window);
    visit("dropout", self.dropout);
    visit("width", self.width);
    visit("materialized", self.materialized);
  }
  static SoftmaxCore make(const SoftmaxOptions& options, const AttentionSettings& settings, RngKey key);
  static SoftmaxCore make(const MaterializedOptions& options, const AttentionSettings& settings, RngKey key);
  static SoftmaxCore make(const LocalOptions& options, const AttentionSettings& settings, RngKey key);
  Var operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence, const Context& context) const;
  std::string layout() const;

  /// With a window and a causal mask: the last `window` keys and values, which a step reads again.
  struct State {
    std::vector<float> rows;  ///< [up to window, 2 width] key and value: event i in row i % window
    std::int64_t columns = 0, window = 0;

    std::size_t heap_bytes() const { return rows.capacity() * sizeof(float); }
    void save(std::string& to) const { write_values(to, std::span<const float>(rows)); }
    void load(ByteReader& bytes, std::int64_t events);
  };
  bool has_state() const { return window > 0 && mask == ops::AttentionMask::causal; }
  State initial_state() const { return {.rows = {}, .columns = 2 * width, .window = window}; }
  Var step(State& state, const Var& q, const Var& k, const Var& v, const Event& event) const;
};

}  // namespace tally::nn
