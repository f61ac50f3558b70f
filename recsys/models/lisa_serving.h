#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tally/recsys/models/lisa.h"

namespace tally::recsys {

/// A block of a served model: its attention has tables and values in place of the projections that they were made of.
struct LisaServingBlock {
  LisaBlock block;
  nn::Buffer inner;               ///< [B, W, W]
  nn::Buffer values;              ///< [B * W, D]
  nn::Buffer attended_positions;  ///< [window, D] what attention to positions gives; absent where there is none
  static void fields(auto& self, auto&& visit) {
    LisaBlock::fields(self.block, visit);
    visit("inner", self.inner);
    visit("values", self.values);
    visit("attended_positions", self.attended_positions);
  }
};

/// What a served model consists of. No tensor has a row of width D for each item.
struct LisaServingWeights {
  nn::Buffer codes;             ///< [N, B] codes of each item in histories (u8 where W <= 256, else i32)
  nn::Buffer codebooks;         ///< [B, W, D]
  nn::Buffer target_codes;      ///< [N, B] of `mini`: codes of each item as a target; absent where they are the same
  nn::Buffer target_codebooks;  ///< [B, W', D]
  nn::Embedding positions;
  std::vector<LisaServingBlock> blocks;
  PositionAlignment alignment = PositionAlignment::start;
  double score_scale = 1;
  static void fields(auto& self, auto&& visit) {
    visit("codes", self.codes);
    visit("codebooks", self.codebooks);
    visit("target_codes", self.target_codes);
    visit("target_codebooks", self.target_codebooks);
    visit("positions", self.positions);
    visit("blocks", self.blocks);
    visit("alignment", self.alignment);
    visit("score_scale", self.score_scale);
  }
};

/// Bytes of a served model.
struct LisaServingSize {
  std::int64_t codes = 0;
  std::int64_t codebooks = 0;
  std::int64_t tables = 0;           ///< inner products and values of every block
  std::int64_t positions = 0;        ///< embeddings, and what attention to positions gives
  std::int64_t layers = 0;           ///< norms, feed-forward parts, quantizers of later blocks
  std::int64_t embedding_table = 0;  ///< 4 N D, which it does without

  std::int64_t items() const { return codes + codebooks; }
  std::int64_t total() const { return codes + codebooks + tables + positions + layers; }
};

/// A trained LISA model in the form that is served: items are codes, computed once; the embedding table is dropped. Its
/// hidden states are the model's. An item's score is <hidden state, its vector>, and the vector is a sum of codewords,
/// so the hidden state meets all B W codewords once and an item costs B additions, in the order of codebooks
/// (item_scorer.h): the same bits for any number of threads and whatever else is in the batch.
///
/// It is a ranker (recsys/ranker.h): `recommend(Ranker(serving), histories, k)` gives the exact top k. f32. A value;
/// copies share the weights, which never change.
class LisaServing {
 public:
  /// Of `base` and `mini`, with any number of layers. Throws ValueError for full targets (those of `soft`): each item
  /// has its full embedding as a target, so there is nothing to drop; DTypeError unless it is f32.
  static LisaServing from(const Lisa& model);

  /// Writes all tensors as safetensors, settings as metadata; the file is replaced whole or not at all.
  void save(const std::filesystem::path& path, const std::map<std::string, std::string>& metadata = {}) const;
  /// Throws IoError for a file that holds something else: another version, a tensor missing, left over, of another
  /// shape, or not finite, a code that names no codeword.
  static LisaServing load(const std::filesystem::path& path);

  std::string name() const { return weights_->target_codes.defined() ? "lisa-mini-codes" : "lisa-base-codes"; }
  std::int64_t num_items() const { return codes().dim(0); }
  std::int64_t width() const { return weights_->codebooks.value().dim(2); }
  /// Longest history it reads; longer ones are cut to their last items.
  std::int64_t window() const { return weights_->positions.table.shape()[0]; }
  const Tensor& codes() const { return weights_->codes.value(); }
  const Tensor& target_codes() const {
    return (weights_->target_codes.defined() ? weights_->target_codes : weights_->codes).value();
  }
  const LisaServingWeights& weights() const { return *weights_; }
  /// What the model is besides its tensors, as JSON.
  std::string settings() const;

  /// Hidden state after each item, [T, D]. Throws ShapeError for a sequence longer than the window.
  Tensor encode(const Sequences& batch) const;
  /// [histories.count(), num_items()]; an empty history scores every item 0.
  Tensor score(const Sequences& histories) const;
  /// [histories.count(), D] the last hidden state of each history, zeros for an empty one: a score is its inner product
  /// with a row of scorer().vectors().
  Tensor user_vectors(const Sequences& histories) const;
  /// From hidden states to the scores of all items.
  const ItemScorer& scorer() const { return scorer_; }
  /// One event at a time, for sessions: lisa_recurrence.h. Throws ValueError as LisaRecurrence does.
  std::shared_ptr<const RecurrentModel> recurrent() const;

  LisaServingSize size() const;

 private:
  explicit LisaServing(LisaServingWeights weights);

  std::shared_ptr<const LisaServingWeights> weights_;
  ItemScorer scorer_;
  std::vector<ops::VectorQuantizationTables> quantizer_tables_;  ///< by block; empty where it quantizes nothing
};

}  // namespace tally::recsys
