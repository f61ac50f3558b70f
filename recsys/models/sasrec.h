#pragma once

#include "tally/nn/blocks/transformer.h"
#include "tally/recsys/models/layered_recurrence.h"
#include "tally/recsys/models/sasrec_options.h"
#include "tally/recsys/models/window.h"

namespace tally::recsys {

/// Kang & McAuley, "Self-attentive sequential recommendation", ICDM 2018 (arXiv 1808.09781), with the item table shared
/// between input and output unless said otherwise; in the setting of Klenitskiy & Vasilev, RecSys 2023, by default.
struct SasRec {
  nn::Embedding items, positions;
  nn::Dropout dropout;
  std::vector<nn::TransformerBlock> blocks;
  nn::LayerNorm norm;
  nn::Parameter output;  ///< [items, width], absent when tied
  std::int64_t window = 0;
  PositionAlignment alignment = PositionAlignment::start;
  EmbeddingForm embeddings = {};
  static constexpr void fields(auto& self, auto&& visit) {
    visit("items", self.items);
    visit("positions", self.positions);
    visit("dropout", self.dropout);
    visit("blocks", self.blocks);
    visit("norm", self.norm);
    visit("output", self.output);
    visit("window", self.window);
    visit("alignment", self.alignment);
    visit("embeddings", self.embeddings);
  }

  static SasRec make(const SasRecOptions& options, RngKey key);
  /// [T, width]; row t depends on the items of its sequence up to t.
  Var encode(const Sequences& batch, const nn::Context& context) const { return encode_layers(*this, batch, context); }
  /// Its parts, row by row: layered_recurrence.h.
  Var embed(const Tensor& row_items, const Tensor& row_positions, const nn::Context& context) const;
  Var finish(const Var& x) const { return embeddings.finished(norm, x); }
  /// Settings in words that no tensor shows.
  std::string layout() const { return embeddings.layout(); }
  Var item_table() const { return output.defined() ? output.var() : items.table.var(); }
};

}  // namespace tally::recsys
