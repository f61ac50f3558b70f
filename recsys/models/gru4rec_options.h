#pragma once

#include <cstdint>

#include "tally/core/options/options.h"

namespace tally::recsys {

struct Gru4RecOptions {
  std::int64_t items = 0;
  std::int64_t width = 64;           ///< of states
  std::int64_t embedding_width = 0;  ///< of items, to which states are mapped; 0: that of states, and no map
  std::int64_t layers = 1;
  std::int64_t window = 200;
  double dropout = 0;          ///< of embeddings, and between layers
  double deviation = 0.02;     ///< of the item tables' normal initial values
  bool tie_embeddings = true;  ///< score items with the table that they are read with
  bool bias = true;            ///< of the units

  static void keys(auto& o, auto&& key) {
    key("hidden_size", o.width, at_least(1), "width of states");
    key("embedding_size", o.embedding_width, at_least(0),
        "width of item embeddings, to which a linear layer maps states (RecBole); 0: hidden_size, and no layer");
    key("n_layers", o.layers, from_to(1, 1000), "layers of recurrent units; published settings have 1");
    key("MAX_ITEM_LIST_LENGTH", o.window, at_least(1), "longest history that is read");
    key("hidden_dropout_prob", o.dropout, rate(), "dropout of embeddings and between layers");
    key("initializer_range", o.deviation, above(0), "deviation of the item tables' normal initial values");
    key("tie_embeddings", o.tie_embeddings, "score items with the table that they are read with");
    key("gru_bias", o.bias, "biases of the units; RecBole has none");
  }
};

}  // namespace tally::recsys
