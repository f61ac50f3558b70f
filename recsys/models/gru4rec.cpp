#include "tally/recsys/models/gru4rec.h"

#include "tally/nn/initializers.h"

namespace tally::recsys {

Gru4Rec Gru4Rec::make(const Gru4RecOptions& options, RngKey key) {
  check<ValueError>(options.layers >= 1, "Gru4Rec", "needs at least one layer; got ", options.layers);
  const std::int64_t width = options.embedding_width == 0 ? options.width : options.embedding_width;
  Gru4Rec model{
      .items = nn::Embedding::make({options.items, width, options.deviation}, key.fold_in("items")),
      .dropout = {options.dropout},
      .layers = {},
      .dense = {},
      .output = {},
      .window = options.window,
  };
  for (std::int64_t layer = 0; layer < options.layers; ++layer) {
    model.layers.push_back(
        nn::Gru::make({.in = layer == 0 ? width : options.width, .width = options.width, .bias = options.bias},
                      key.fold_in("layers").fold_in(static_cast<std::uint64_t>(layer))));
  }
  if (options.embedding_width > 0) model.dense = nn::Linear::make({options.width, width}, key.fold_in("dense"));
  if (!options.tie_embeddings) {
    model.output = nn::Parameter(nn::normal({options.items, width}, options.deviation, key.fold_in("output")));
  }
  return model;
}

Var Gru4Rec::encode(const Sequences& batch, const nn::Context& context) const {
  Var x = items(batch.items);
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    x = layers[layer](dropout(x, context.at("dropout").at(layer)), batch.offsets);
  }
  return finish(x);
}

}  // namespace tally::recsys
