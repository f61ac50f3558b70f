#include "tally/recsys/models/recgrela.h"

#include "tally/nn/initializers.h"

namespace tally::recsys {

RecGrelaOptions recgrela_options(const nn::AttentionKinds& attentions) {
  return {.attention = {attentions, "recgrela"}};
}

void RecGrelaOptions::check(const std::string& section) const {
  check_heads(*this, section);
  tally::check<ConfigError>(attention.row().causal || !causal, section + ".mask", "needs bidirectional with attention ",
                            attention.name(), ", which has no causal form");
}

RecGrela RecGrela::make(const RecGrelaOptions& options, RngKey key) {
  options.check("RecGrela");
  RecGrela model{
      .items = nn::Embedding::make({options.items, options.width, options.deviation}, key.fold_in("items")),
      .dropout = {options.hidden_dropout},
      .embedding_norm = nn::LayerNorm::make({options.width, options.epsilon}),
      .blocks = blocks_of(options, nn::NormPlacement::pre,
                          options.causal ? ops::AttentionMask::causal : ops::AttentionMask::bidirectional, key),
      .output = {},
      .window = options.window,
      .causal = options.causal,
  };
  for (nn::TransformerBlock& block : model.blocks) block.drop_path = {options.drop_path};
  if (!options.tie_embeddings) {
    model.output = nn::Parameter(nn::normal({options.items, options.width}, options.deviation, key.fold_in("output")));
  }
  return model;
}

Var RecGrela::embed(const Tensor& row_items, const Tensor&, const nn::Context& context) const {
  return embedding_norm(dropout(items(row_items), context));
}

}  // namespace tally::recsys
