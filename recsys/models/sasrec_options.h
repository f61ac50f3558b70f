#pragma once

#include <string>
#include <vector>

#include "tally/core/options/options.h"
#include "tally/nn/blocks/transformer.h"
#include "tally/recsys/models/embedding_form.h"
#include "tally/recsys/models/window.h"

namespace tally::recsys {

/// The attentions that a recommender may use: those that do not see what they are to predict.
nn::AttentionKinds causal_attentions(const nn::AttentionKinds& kinds = nn::attention_kinds());

/// Keys that all models of blocks over item embeddings have, under the same names.
void keys_of_blocks(auto& o, auto&& key) {
  key("hidden_size", o.width, at_least(1), "width of embeddings and hidden rows");
  key("n_layers", o.blocks, from_to(1, 1000), "blocks of attention and feed-forward part");
  key("n_heads", o.heads, at_least(1), "heads of attention; a divisor of hidden_size");
  key("inner_size", o.inner, at_least(0), "width within the feed-forward part; 0: hidden_size");
  key("MAX_ITEM_LIST_LENGTH", o.window, at_least(1), "longest history that is read");
  key("hidden_dropout_prob", o.hidden_dropout, rate(), "dropout of embeddings and of what blocks add");
  key("hidden_act", o.activation, among<ops::Activation>({"relu", "gelu", "silu"}),
      "activation of the feed-forward part");
  key("initializer_range", o.deviation, above(0), "deviation of all normal initial weights");
  key("layer_norm_eps", o.epsilon, above(0), "epsilon of layer norms");
  key("tie_embeddings", o.tie_embeddings, "score items with the table that they are read with");
  key("attention", o.attention, "kind of attention: `tally attentions`");
}

/// Throws ConfigError unless the heads share the width evenly.
void check_heads(const auto& o, const std::string& section) {
  tally::check<ConfigError>(o.width % o.heads == 0, section + ".hidden_size", "needs a multiple of n_heads ", o.heads,
                            "; got ", o.width);
}

/// The blocks that such options describe, each with a key of its own.
std::vector<nn::TransformerBlock> blocks_of(const auto& o, nn::NormPlacement norm, ops::AttentionMask mask,
                                            RngKey key) {
  std::vector<nn::TransformerBlock> blocks;
  for (std::int64_t b = 0; b < o.blocks; ++b) {
    blocks.push_back(nn::TransformerBlock::make(
        {.attention = o.attention,
         .settings = {.width = o.width, .heads = o.heads, .mask = mask, .max_length = o.window},
         .inner = o.inner,
         .activation = o.activation,
         .hidden_dropout = o.hidden_dropout,
         .deviation = o.deviation,
         .epsilon = o.epsilon,
         .norm = norm},
        key.fold_in("blocks").fold_in(static_cast<std::uint64_t>(b))));
  }
  return blocks;
}

struct SasRecOptions {
  std::int64_t items = 0;
  std::int64_t width = 64;
  std::int64_t blocks = 2;
  std::int64_t heads = 1;
  nn::AttentionChoice attention{causal_attentions(), "softmax"};
  std::int64_t inner = 0;  ///< of the feed-forward part; 0 means the width
  std::int64_t window = 200;
  double hidden_dropout = 0.1;
  double deviation = 0.02;  ///< of all normal initial weights
  ops::Activation activation = ops::Activation::relu;
  nn::NormPlacement norm = nn::NormPlacement::sasrec;
  PositionAlignment alignment = PositionAlignment::start;
  double epsilon = 1e-8;
  EmbeddingForm embeddings = {};
  bool tie_embeddings = true;  ///< score items with the table that they are read with (gSASRec does not)
  ops::AttentionMask mask = ops::AttentionMask::causal;  ///< not SASRec's to choose: a model of other training may

  static void keys(auto& o, auto&& key) {
    keys_of_blocks(o, key);
    key("norm", o.norm, "where a block normalises; `sasrec`: as the released SASRec");
    key("position_alignment", o.alignment, "which end of the window position 0 counts from");
    key(o.embeddings);
  }
  void check(const std::string& section) const;
};

}  // namespace tally::recsys
