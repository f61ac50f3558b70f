#include "tally/recsys/models/sasrec.h"

#include <cmath>

#include "tally/nn/initializers.h"
#include "tally/ops/elementwise/elementwise.h"

namespace tally::recsys {

SasRec SasRec::make(const SasRecOptions& options, RngKey key) {
  check<ValueError>(options.blocks >= 1, "SasRec", "needs at least one block; got ", options.blocks);
  SasRec model{
      .items = nn::Embedding::make({options.items, options.width, options.deviation}, key.fold_in("items")),
      .positions = nn::Embedding::make({options.window, options.width, options.deviation}, key.fold_in("positions")),
      .dropout = {options.hidden_dropout},
      .blocks = {},
      .norm = nn::LayerNorm::make({options.width, options.epsilon}),
      .output = {},
      .window = options.window,
      .alignment = options.alignment,
  };
  for (std::int64_t b = 0; b < options.blocks; ++b) {
    model.blocks.push_back(nn::TransformerBlock::make({.attention = options.attention,
                                                       .settings = {.width = options.width,
                                                                    .heads = options.heads,
                                                                    .mask = options.mask,
                                                                    .max_length = options.window},
                                                       .inner = options.inner,
                                                       .activation = options.activation,
                                                       .hidden_dropout = options.hidden_dropout,
                                                       .deviation = options.deviation,
                                                       .epsilon = options.epsilon,
                                                       .norm = options.norm},
                                                      key.fold_in("blocks").fold_in(static_cast<std::uint64_t>(b))));
  }
  if (!options.tie_embeddings) {
    model.output = nn::Parameter(nn::normal({options.items, options.width}, options.deviation, key.fold_in("output")));
  }
  return model;
}

Var SasRec::embed(const Tensor& row_items, const Tensor& row_positions, const nn::Context& context) const {
  const double scale = std::sqrt(static_cast<double>(items.table.shape()[1]));
  return dropout(items(row_items, scale) + positions(row_positions), context);
}

}  // namespace tally::recsys
