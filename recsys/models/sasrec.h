#pragma once

#include "tally/nn/transformer.h"
#include "tally/recsys/models/layered_recurrence.h"
#include "tally/recsys/models/window.h"

namespace tally::recsys {

struct SasRecOptions {
  std::int64_t items = 0;
  std::int64_t width = 64;
  std::int64_t blocks = 2;
  std::int64_t heads = 1;
  std::string attention = "softmax";  ///< of nn::attention_kinds(); the others are rivals in a comparison
  nn::AttentionSettings rival = {};   ///< settings that softmax has not: block, random_features, buckets, rounds
  std::int64_t inner = 0;             ///< of the feed-forward part; 0 means the width
  std::int64_t window = 200;
  double hidden_dropout = 0.1;
  double attention_dropout = 0.1;
  double deviation = 0.02;  ///< of all normal initial weights
  ops::Activation activation = ops::Activation::relu;
  nn::NormPlacement norm = nn::NormPlacement::sasrec;
  PositionAlignment alignment = PositionAlignment::start;
  double epsilon = 1e-8;
  bool tie_embeddings = true;  ///< score items with the table that they are read with (gSASRec does not)
};

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
  static void fields(auto& self, auto&& visit) {
    visit("items", self.items);
    visit("positions", self.positions);
    visit("dropout", self.dropout);
    visit("blocks", self.blocks);
    visit("norm", self.norm);
    visit("output", self.output);
    visit("window", self.window);
    visit("alignment", self.alignment);
  }

  /// The attentions are made by `kinds`.
  static SasRec make(const SasRecOptions& options, RngKey key, const nn::AttentionKinds& kinds = nn::attention_kinds());
  /// [T, width]; row t depends on the items of its sequence up to t.
  Var encode(const Sequences& batch, const nn::Context& context) const { return encode_layers(*this, batch, context); }
  /// Its parts, row by row: layered_recurrence.h.
  Var embed(const Tensor& row_items, const Tensor& row_positions, const nn::Context& context) const;
  Var finish(const Var& x) const { return norm(x); }
  Var item_table() const { return output.defined() ? output.var() : items.table.var(); }
};

}  // namespace tally::recsys
