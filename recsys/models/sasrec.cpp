#include "tally/recsys/models/sasrec.h"

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
      .embeddings = options.embeddings,
  };
  if (!options.tie_embeddings) {
    model.output = nn::Parameter(nn::normal({options.items, options.width}, options.deviation, key.fold_in("output")));
  }
  return model;
}

Var SasRec::embed(const Tensor& row_items, const Tensor& row_positions, const nn::Context& context) const {
  const Var x = items(row_items, embeddings.scale(items.table.shape()[1])) + positions(row_positions);
  return dropout(embeddings.embedded(norm, x), context);
}

}  // namespace tally::recsys
