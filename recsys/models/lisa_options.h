#pragma once

#include <string>

#include "tally/core/options/options.h"
#include "tally/ops/elementwise/activation.h"
#include "tally/ops/quantization/vector_quantization.h"
#include "tally/recsys/models/window.h"

namespace tally::recsys {

/// What LISA quantizes, and how (arXiv 2105.14068 and its released code).
enum class LisaVariant {
  base,  ///< histories and targets by the same codebooks, hard codes
  soft,  ///< histories by soft assignments; targets are the full item embeddings
  mini,  ///< histories by small codebooks, targets by a second, larger quantizer; hard codes
};
constexpr auto words(LisaVariant) {
  using W = Word<LisaVariant>;
  return std::array{W{"base", LisaVariant::base}, W{"soft", LisaVariant::soft}, W{"mini", LisaVariant::mini}};
}

/// Where reconstructions stand for the items.
enum class LisaQuantized {
  all,        ///< as the variant has it
  histories,  ///< targets are the full item embeddings, as those of `soft` always are
  attention,  ///< the hidden stream carries the full embeddings too: codes serve attention alone
};
constexpr auto words(LisaQuantized) {
  using W = Word<LisaQuantized>;
  return std::array{W{"all", LisaQuantized::all}, W{"histories", LisaQuantized::histories},
                    W{"attention", LisaQuantized::attention}};
}

struct LisaOptions {
  std::int64_t items = 0;
  std::int64_t width = 128;
  std::int64_t layers = 1;  ///< those after the first quantize the hidden states anew
  std::int64_t inner = 0;   ///< of the feed-forward part; 0 means the width
  std::int64_t window = 300;
  LisaVariant variant = LisaVariant::base;
  std::int64_t codebooks = 8;
  std::int64_t codewords = 128;
  std::int64_t target_codewords = 128;           ///< of the second quantizer of `mini`
  LisaQuantized quantized = LisaQuantized::all;  ///< `mini` knows no other
  ops::CodewordSimilarity similarity = ops::CodewordSimilarity::bilinear;
  double temperature = 0.7;
  bool codeword_bias = false;         ///< LightRec's bias of each codeword, which the released code leaves out
  bool residual = true;               ///< each codebook encodes what those before it left over
  bool kmeans = false;                ///< codebooks begin as k-means of the initial item embeddings, not as small noise
  double decay = 0.1;                 ///< of counts, per event; 0 counts all events alike
  bool learn_decay = false;           ///< train it, from the given value
  bool soft_query = false;            ///< of `soft`: queries are soft too, as in the paper's text, not in its code
  std::int64_t attention_window = 0;  ///< tally only the last so many events, decayed as they are; 0 tallies all
  std::int64_t position_codebooks = 0;   ///< above 0: blocks attend to quantized positions beside the items' codes
  std::int64_t position_codewords = 32;  ///< of each of those codebooks
  double score_scale = 1;                ///< of the target vectors, and so of all scores
  /// Weight of |x - stopped(its reconstruction)|^2, meaned over tokens; in `mini` also of the targets, by their
  /// quantizer.
  double commitment = 0;
  double dropout = 0.1;
  ops::Activation activation = ops::Activation::relu;
  PositionAlignment alignment = PositionAlignment::start;
  double epsilon = 1e-5;

  static void keys(auto& o, auto&& key) {
    key("hidden_size", o.width, at_least(1), "width of embeddings and hidden rows");
    key("n_layers", o.layers, from_to(1, 1000), "blocks; those after the first quantize the hidden states anew");
    key("inner_size", o.inner, at_least(0), "width within the feed-forward part; 0: hidden_size");
    key("MAX_ITEM_LIST_LENGTH", o.window, at_least(1), "longest history that is read");
    key("hidden_dropout_prob", o.dropout, rate(), "dropout of embeddings and of what blocks add");
    key("hidden_act", o.activation, among<ops::Activation>({"relu", "gelu", "silu"}),
        "activation of the feed-forward part");
    key("position_alignment", o.alignment, "which end of the window position 0 counts from");
    key("layer_norm_eps", o.epsilon, above(0), "epsilon of layer norms");
    key("lisa_variant", o.variant, "what is quantized, and how");
    key("codebooks", o.codebooks, at_least(1), "codebooks of the histories");
    key("codewords", o.codewords, at_least(1), "codewords of each codebook of the histories");
    key("target_codewords", o.target_codewords, at_least(1), only_with("lisa_variant", o.variant, {LisaVariant::mini}),
        "codewords of each codebook of the targets");
    key("quantized", o.quantized, "what reads reconstructions instead of the embeddings");
    key("similarity", o.similarity, "of a row and a codeword");
    key("temperature", o.temperature, inverse_in_f32(), "divides similarities before their softmax");
    key("codeword_bias", o.codeword_bias, "a trained bias of each codeword's similarity");
    key("residual_quantization", o.residual, "each codebook encodes what those before it left over");
    key("codebook_init", o.kmeans, one_of({"xavier", "kmeans"}), "`kmeans`: of the initial item embeddings");
    key("counts_decay", o.decay, at_least(0), "an event k places back counts exp(-counts_decay k); 0: all count alike");
    key("learn_decay", o.learn_decay, "train counts_decay, from its value");
    key("soft_query", o.soft_query, only_with("lisa_variant", o.variant, {LisaVariant::soft}),
        "queries are soft as well");
    key("counts_window", o.attention_window, at_least(0), "tally only the last so many events, which decay; 0: all");
    key("position_codebooks", o.position_codebooks, at_least(0),
        "above 0: blocks attend to quantized positions too, by so many codebooks");
    key("position_codewords", o.position_codewords, at_least(1),
        only_if(o.position_codebooks > 0, "position_codebooks above 0"), "codewords of each of those codebooks");
    key("score_scale", o.score_scale, above(0),
        "of the scores in the loss: 1 / sqrt(width) undoes that of the embeddings");
    key("commitment_weight", o.commitment, at_least(0),
        "weight in the loss of the distance from embeddings to their reconstructions");
  }
  void check(const std::string& section) const;
  /// "lisa-base", "lisa-base-quantized-attention".
  std::string model_name() const;
  /// Of a temperature.
  static Domain inverse_in_f32();
};

}  // namespace tally::recsys
