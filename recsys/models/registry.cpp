#include "tally/recsys/models/registry.h"

#include <map>

#include "tally/recsys/models/gru4rec.h"
#include "tally/recsys/models/sasrec.h"

namespace tally::recsys {
namespace {

/// The value that a config's word stands for. parse_config has checked the word.
template <class T>
T look_up(const std::map<std::string, T>& names, const std::string& word) {
  const auto found = names.find(word);
  check<ConfigError>(found != names.end(), "model", "knows no '", word, "'");
  return found->second;
}

SasRecOptions sasrec_options(const ModelConfig& config, std::int64_t items) {
  return {
      .items = items,
      .width = config.hidden_size,
      .blocks = config.n_layers,
      .heads = config.n_heads,
      .inner = config.inner_size,
      .window = config.max_item_list_length,
      .hidden_dropout = config.hidden_dropout_prob,
      .attention_dropout = config.attn_dropout_prob,
      .deviation = config.initializer_range,
      .activation = look_up<ops::Activation>(
          {{"relu", ops::Activation::relu}, {"gelu", ops::Activation::gelu}, {"silu", ops::Activation::silu}},
          config.hidden_act),
      .norm = look_up<nn::NormPlacement>(
          {{"sasrec", nn::NormPlacement::sasrec}, {"pre", nn::NormPlacement::pre}, {"post", nn::NormPlacement::post}},
          config.norm),
      .alignment = look_up<PositionAlignment>({{"start", PositionAlignment::start}, {"end", PositionAlignment::end}},
                                              config.position_alignment),
      .epsilon = config.layer_norm_eps,
      .tie_embeddings = config.tie_embeddings};
}

Gru4RecOptions gru4rec_options(const ModelConfig& config, std::int64_t items) {
  return {.items = items,
          .width = config.hidden_size,
          .layers = config.n_layers,
          .window = config.max_item_list_length,
          .dropout = config.hidden_dropout_prob,
          .deviation = config.initializer_range,
          .tie_embeddings = config.tie_embeddings};
}

}  // namespace

std::unique_ptr<SequenceModel> make_sequence_model(const ModelConfig& config, std::int64_t items, RngKey key) {
  if (config.name == "gru4rec") {
    return std::make_unique<SequenceModelOf<Gru4Rec>>("gru4rec", Gru4Rec::make(gru4rec_options(config, items), key));
  }
  if (config.name == "sasrec") {
    return std::make_unique<SequenceModelOf<SasRec>>("sasrec", SasRec::make(sasrec_options(config, items), key));
  }
  fail<ConfigError>("model.name", "knows no model '", config.name, "'");
}

}  // namespace tally::recsys
