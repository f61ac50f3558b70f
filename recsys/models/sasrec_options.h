#pragma once

#include <string>

#include "tally/core/options/options.h"
#include "tally/nn/blocks/transformer.h"
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

  static void keys(auto& o, auto&& key) {
    const auto with = [&](const std::vector<std::string>& kinds) { return only_with("attention", o.attention, kinds); };
    key("hidden_size", o.width, at_least(1), "width of embeddings and hidden rows");
    key("n_layers", o.blocks, at_least(1), "blocks of attention and feed-forward part");
    key("n_heads", o.heads, at_least(1), "heads of attention; a divisor of hidden_size");
    key("inner_size", o.inner, at_least(0), "width within the feed-forward part; 0: hidden_size");
    key("MAX_ITEM_LIST_LENGTH", o.window, at_least(1), "longest history that is read");
    key("hidden_dropout_prob", o.hidden_dropout, rate(), "dropout of embeddings and of what blocks add");
    key("attn_dropout_prob", o.attention_dropout, rate(), with({"softmax", "softmax_materialized", "local"}),
        "dropout of attention probabilities");
    key("hidden_act", o.activation, among<ops::Activation>({"relu", "gelu", "silu"}),
        "activation of the feed-forward part");
    key("norm", o.norm, "where a block normalises; `sasrec`: as the released SASRec");
    key("position_alignment", o.alignment, "which end of the window position 0 counts from");
    key("initializer_range", o.deviation, above(0), "deviation of all normal initial weights");
    key("layer_norm_eps", o.epsilon, above(0), "epsilon of layer norms");
    key("tie_embeddings", o.tie_embeddings, "score items with the table that they are read with");
    key("attention", o.attention, one_of(causal_attentions()), "kind of attention: `tally attentions`");
    key("attention_block", o.rival.block, at_least(1), with({"local", "lsh", "sinkhorn"}),
        "rows of local's window, of lsh's chunks and of sinkhorn's blocks");
    key("random_features", o.rival.random_features, at_least(1), with({"linear_favor"}), "random features of a head");
    key("lsh_buckets", o.rival.buckets, at_least(2), even(), with({"lsh"}), "buckets of a hash");
    key("lsh_rounds", o.rival.rounds, at_least(1), with({"lsh"}), "hashes");
  }
  void check(const std::string& section) const;

  /// The attentions that a recommender may use: those that do not see what they are to predict.
  static const std::vector<std::string>& causal_attentions();
};

}  // namespace tally::recsys
