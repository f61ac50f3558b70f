#pragma once

#include <vector>

#include "tally/nn/blocks/transformer.h"
#include "tally/recsys/models/layered_recurrence.h"
#include "tally/recsys/models/sasrec_options.h"
#include "tally/recsys/models/window.h"

namespace tally::recsys {

struct RecGrelaOptions {
  std::int64_t items = 0;
  std::int64_t width = 64;
  std::int64_t blocks = 4;
  std::int64_t heads = 4;
  nn::AttentionChoice attention{nn::attention_kinds(), "recgrela"};
  std::int64_t inner = 256;
  std::int64_t window = 200;
  double hidden_dropout = 0.2;
  double drop_path = 0;
  double deviation = 0.02;
  ops::Activation activation = ops::Activation::gelu;
  double epsilon = 1e-12;
  bool tie_embeddings = true;
  bool causal = true;

  static void keys(auto& o, auto&& key) {
    keys_of_blocks(o, key);
    key("drop_path_prob", o.drop_path, rate(),
        "probability that a block's attention is left out of a sequence in training; the released configuration has "
        "0.1");
    key("mask", o.causal, one_of({"bidirectional", "causal"}),
        "`causal`: rows see what came before, all are trained at once; `bidirectional`: as published, which needs "
        "train_samples prefix");
  }
  void check(const std::string& section) const;
};

/// The defaults, with these attentions to choose from.
RecGrelaOptions recgrela_options(const nn::AttentionKinds& attentions = nn::attention_kinds());

/// RecGRELA (arXiv 2506.13315; its released code): blocks x + attention(norm(x)), x + feed_forward(norm(x)) over item
/// embeddings that were dropped out and normed. Positions come from the attention alone: there is no table of them, no
/// norm behind the last block, and a stream has no end of its window. Causal, it trains on all positions at once; as
/// published rows see what follows them.
struct RecGrela {
  nn::Embedding items;
  nn::Dropout dropout;
  nn::LayerNorm embedding_norm;
  std::vector<nn::TransformerBlock> blocks;
  nn::Parameter output;  ///< [items, width], absent when tied
  std::int64_t window = 0;
  bool causal = true;
  static constexpr PositionAlignment alignment = PositionAlignment::start;  ///< of positions that nothing reads
  static constexpr void fields(auto& self, auto&& visit) {
    visit("items", self.items);
    visit("dropout", self.dropout);
    visit("embedding_norm", self.embedding_norm);
    visit("blocks", self.blocks);
    visit("output", self.output);
    visit("window", self.window);
    visit("causal", self.causal);
  }

  static RecGrela make(const RecGrelaOptions& options, RngKey key);
  bool looks_ahead() const { return !causal; }
  /// [T, width].
  Var encode(const Sequences& batch, const nn::Context& context) const { return encode_layers(*this, batch, context); }

  // Its parts: layered_recurrence.h.
  Var embed(const Tensor& row_items, const Tensor& row_positions, const nn::Context& context) const;
  Var finish(const Var& x) const { return x; }
  Var item_table() const { return output.defined() ? output.var() : items.table.var(); }
};

}  // namespace tally::recsys
