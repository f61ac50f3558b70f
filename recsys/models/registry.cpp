#include "tally/recsys/models/registry.h"

#include "tally/recsys/config_words.h"
#include "tally/recsys/models/gru4rec.h"
#include "tally/recsys/models/lisa.h"
#include "tally/recsys/models/sasrec.h"

namespace tally::recsys {
namespace {

ops::Activation activation(const ModelConfig& config) {
  return look_up<ops::Activation>(
      "model", {{"relu", ops::Activation::relu}, {"gelu", ops::Activation::gelu}, {"silu", ops::Activation::silu}},
      config.hidden_act);
}

PositionAlignment alignment(const ModelConfig& config) {
  return look_up<PositionAlignment>("model", {{"start", PositionAlignment::start}, {"end", PositionAlignment::end}},
                                    config.position_alignment);
}

SasRecOptions sasrec_options(const ModelConfig& config, std::int64_t items) {
  return {
      .items = items,
      .width = config.hidden_size,
      .blocks = config.n_layers,
      .heads = config.n_heads,
      .attention = config.attention,
      .rival = {.block = config.attention_block,
                .random_features = config.random_features,
                .buckets = config.lsh_buckets,
                .rounds = config.lsh_rounds},
      .inner = config.inner_size,
      .window = config.max_item_list_length,
      .hidden_dropout = config.hidden_dropout_prob,
      .attention_dropout = config.attn_dropout_prob,
      .deviation = config.initializer_range,
      .activation = activation(config),
      .norm = look_up<nn::NormPlacement>(
          "model",
          {{"sasrec", nn::NormPlacement::sasrec}, {"pre", nn::NormPlacement::pre}, {"post", nn::NormPlacement::post}},
          config.norm),
      .alignment = alignment(config),
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

LisaOptions lisa_options(const ModelConfig& config, std::int64_t items) {
  using Similarity = ops::CodewordSimilarity;
  return {.items = items,
          .width = config.hidden_size,
          .layers = config.n_layers,
          .inner = config.inner_size,
          .window = config.max_item_list_length,
          .variant = look_up<LisaVariant>(
              "model", {{"base", LisaVariant::base}, {"soft", LisaVariant::soft}, {"mini", LisaVariant::mini}},
              config.lisa_variant),
          .codebooks = config.codebooks,
          .codewords = config.codewords,
          .target_codewords = config.target_codewords,
          .quantized = look_up<LisaQuantized>("model",
                                              {{"all", LisaQuantized::all},
                                               {"histories", LisaQuantized::histories},
                                               {"attention", LisaQuantized::attention}},
                                              config.quantized),
          .similarity = look_up<Similarity>("model",
                                            {{"bilinear", Similarity::bilinear},
                                             {"dot", Similarity::dot},
                                             {"squared_distance", Similarity::squared_distance}},
                                            config.similarity),
          .temperature = config.temperature,
          .codeword_bias = config.codeword_bias,
          .residual = config.residual_quantization,
          .kmeans = look_up<bool>("model", {{"xavier", false}, {"kmeans", true}}, config.codebook_init),
          .decay = config.counts_decay,
          .learn_decay = config.learn_decay,
          .soft_query = config.soft_query,
          .attention_window = config.counts_window,
          .position_codebooks = config.position_codebooks,
          .position_codewords = config.position_codewords,
          .score_scale = config.score_scale,
          .commitment = config.commitment_weight,
          .dropout = config.hidden_dropout_prob,
          .activation = activation(config),
          .alignment = alignment(config),
          .epsilon = config.layer_norm_eps};
}

}  // namespace

std::unique_ptr<SequenceModel> make_sequence_model(const ModelConfig& config, std::int64_t items, RngKey key) {
  if (config.name == "gru4rec") {
    return std::make_unique<SequenceModelOf<Gru4Rec>>("gru4rec", Gru4Rec::make(gru4rec_options(config, items), key));
  }
  if (config.name == "sasrec") {
    return std::make_unique<SequenceModelOf<SasRec>>("sasrec", SasRec::make(sasrec_options(config, items), key));
  }
  if (config.name == "lisa") {
    return std::make_unique<SequenceModelOf<Lisa>>(
        "lisa-" + config.lisa_variant + (config.quantized == "all" ? "" : "-quantized-" + config.quantized),
        Lisa::make(lisa_options(config, items), key));
  }
  fail<ConfigError>("model.name", "knows no model '", config.name, "'");
}

}  // namespace tally::recsys
