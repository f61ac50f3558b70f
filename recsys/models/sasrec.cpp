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
      .blocks = blocks_of(options, options.norm, options.mask, key),
      .norm = nn::LayerNorm::make({options.width, options.epsilon}),
      .output = {},
      .window = options.window,
      .alignment = options.alignment,
  };
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
