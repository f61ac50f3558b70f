#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "tally/nn/blocks/transformer.h"
#include "tally/nn/histogram_attention.h"
#include "tally/nn/quantization.h"
#include "tally/recsys/models/lisa_options.h"
#include "tally/recsys/models/sequence_model.h"

namespace tally::recsys {

/// One block: attention by histogram and a feed-forward part, each with dropout, residual and norm behind it.
struct LisaBlock {
  std::optional<nn::VectorQuantizer> quantizer;  ///< of its input; absent in the first, which has the items' codes
  nn::HistogramSelfAttention attention;
  std::optional<nn::HistogramSelfAttention> position_attention;  ///< to the model's quantized positions
  nn::LayerNorm attention_norm, feed_forward_norm;
  nn::FeedForward feed_forward;
  nn::Dropout dropout;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("quantizer", self.quantizer);
    visit("attention", self.attention);
    visit("position_attention", self.position_attention);
    visit("attention_norm", self.attention_norm);
    visit("feed_forward_norm", self.feed_forward_norm);
    visit("feed_forward", self.feed_forward);
    visit("dropout", self.dropout);
  }
  /// [T, width], from the stream x and what the attention gave for it.
  Var after_attention(const Var& attended, const Var& x, const nn::Context& context) const;
};

/// What a block's attention and quantizer need of the parameters alone.
struct LisaPreparedBlock {
  nn::HistogramTables tables;
  /// Without the codebooks, which each shard takes as the parameter that they are; absent in the first block.
  std::optional<ops::VectorQuantizationTables> quantizer;
  std::optional<Var> attended_positions;  ///< [window, width] what attention to positions gives, if there is any
  static constexpr void fields(auto& self, auto&& visit) {
    visit("tables", self.tables);
    visit("quantizer", self.quantizer);
    visit("attended_positions", self.attended_positions);
  }
};

/// What LISA computes once and every forward pass reads: of a batch's items for a training step; of all items for
/// evaluation, for serving, which saves it, and for streams.
struct LisaPrepared {
  BatchItems items;                   ///< those that have rows here
  std::optional<Var> embedded;        ///< [items, width] their embeddings; absent in the served form
  Tensor codes;                       ///< [items, B] in histories, u8 or i32
  std::optional<Var> logits;          ///< [items, B * W] of the assignments; absent where hard codes suffice
  std::optional<Var> codebooks;       ///< [B, W, width], where an item's reconstruction is the sum of its codewords
  std::optional<Var> reconstruction;  ///< [items, width], where it is more: a gradient's way, or soft averages
  std::optional<Var> targets;         ///< what hidden states are scored against; absent where codes name it:
  Tensor target_codes;                ///< [items, B] of `mini`
  std::optional<Var> target_codebooks;
  std::vector<LisaPreparedBlock> blocks;
  /// [items, width], whichever form it has.
  Var reconstructions() const;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("items", self.items);
    visit("embedded", self.embedded);
    visit("codes", self.codes);
    visit("codebooks", self.codebooks);
    visit("reconstruction", self.reconstruction);
    visit("logits", self.logits);
    visit("targets", self.targets);
    visit("target_codes", self.target_codes);
    visit("target_codebooks", self.target_codebooks);
    visit("blocks", self.blocks);
  }
};

/// Wu et al., "Linear-time self attention with codeword histogram for efficient recommendation", WWW 2021: item
/// embeddings are quantized before anything else, once for each item and step; a token attends to the tally of the
/// codewords before it. The hidden stream carries the reconstructions, so that `base` needs no item embedding to serve.
struct Lisa {
  nn::Embedding items, positions;
  nn::VectorQuantizer quantizer;
  std::optional<nn::VectorQuantizer> target_quantizer;
  std::optional<nn::VectorQuantizer> position_quantizer;  ///< soft
  nn::Dropout dropout;
  std::vector<LisaBlock> blocks;
  LisaVariant variant = LisaVariant::base;
  bool full_targets = false;  ///< the item embeddings are the target vectors
  bool full_stream = false;   ///< they are what the hidden stream begins with
  bool kmeans = false;        ///< codebooks begin as k-means of the item embeddings
  double score_scale = 1;
  double commitment = 0;
  std::int64_t window = 0;
  PositionAlignment alignment = PositionAlignment::start;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("items", self.items);
    visit("positions", self.positions);
    visit("quantizer", self.quantizer);
    visit("target_quantizer", self.target_quantizer);
    visit("position_quantizer", self.position_quantizer);
    visit("dropout", self.dropout);
    visit("blocks", self.blocks);
    visit("variant", self.variant);
    visit("full_targets", self.full_targets);
    visit("full_stream", self.full_stream);
    visit("kmeans", self.kmeans);
    visit("score_scale", self.score_scale);
    visit("commitment", self.commitment);
    visit("window", self.window);
    visit("alignment", self.alignment);
  }

  static Lisa make(const LisaOptions& options, RngKey key);

  std::int64_t num_items() const { return items.table.shape()[0]; }
  std::int64_t width() const { return items.table.shape()[1]; }
  LisaPrepared prepare(const BatchItems& batch_items) const;
  Var encode(const Sequences& batch, const LisaPrepared& prepared, const nn::Context& context) const;
  bool prepares_candidates() const { return !full_targets; }
  Var candidate_table(const LisaPrepared& prepared) const;

  /// What a block's attention gives for rows quantized like this: of whole sequences, or of an event and a state.
  using Attend = std::function<Var(std::size_t block, const ops::VectorQuantization& rows)>;
  /// The forward pass, for rows of items [T] (i32) at positions [T] (i32, in [0, window)). `attend` is called for each
  /// block in turn. Returns [T, width].
  Var forward(const Tensor& row_items, const Tensor& places, const LisaPrepared& prepared, const nn::Context& context,
              const Attend& attend) const;
  /// Rows of prepared items as the first block takes them: their codes and, where they are read, logits.
  ops::VectorQuantization quantized(const Tensor& rows, const LisaPrepared& prepared) const;
  /// A copy of the part that forward() reads beside prepared values: positions, and of each block its quantizer and
  /// what goes row by row. Its decay is a number.
  Lisa without_tables() const;
  /// One event at a time: lisa_recurrence.h. `weights` is a hash of all weights.
  std::shared_ptr<const RecurrentModel> recurrent(const std::string& name, std::uint64_t weights) const;
  Var auxiliary_loss(const Sequences& batch, const Tensor& targets, const LisaPrepared& prepared,
                     const nn::Context& context) const;
  /// With `kmeans`, codebooks of the item embeddings as they are now.
  void initialize_from_weights(RngKey key);
  /// Of all items, each counted once, by the quantizer of histories: `codewords_used`, the share of codewords that
  /// stand for any item; `codeword_perplexity`, meaned over codebooks; `quantization_error`, |x - reconstruction|^2
  /// over |x|^2. The same of the targets' own quantizer, with `target_` before the name.
  std::vector<Measure> measures() const;
};

}  // namespace tally::recsys
