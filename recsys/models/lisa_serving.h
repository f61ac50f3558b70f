#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tally/recsys/models/lisa.h"

namespace tally::recsys {

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

/// A trained LISA model in the form that is served: what the model prepares of all items, as codes, and the part of it
/// that goes row by row; the embedding table and the projections are dropped. No tensor has a row of width D for each
/// item. Its hidden states are the model's, by the same forward pass. An item's score is <hidden state, its vector>,
/// and the vector is a sum of codewords, so the hidden state meets all B W codewords once and an item costs B
/// additions, in the order of codebooks (item_scorer.h): the same bits for any number of threads and whatever else is
/// in the batch.
///
/// It is a ranker (recsys/evaluation/ranker.h): `recommend(Ranker(serving), histories, k)` gives the exact top k. f32.
/// A value; copies share the weights, which never change.
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

  std::string name() const { return prepared().target_codebooks ? "lisa-mini-codes" : "lisa-base-codes"; }
  std::int64_t num_items() const { return codes().dim(0); }
  std::int64_t width() const { return prepared().codebooks->dim(2); }
  /// Longest history it reads; longer ones are cut to their last items.
  std::int64_t window() const { return model().window; }
  const Tensor& codes() const { return prepared().codes; }
  const Tensor& target_codes() const { return prepared().target_codebooks ? prepared().target_codes : codes(); }
  /// What goes row by row, and what is prepared of all items.
  const Lisa& model() const { return served_->model; }
  const LisaPrepared& prepared() const { return served_->prepared; }
  /// Every tensor, by the name that it has in the file.
  std::map<std::string, Tensor> tensors() const;
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
  struct Served {
    Lisa model;
    LisaPrepared prepared;
  };
  explicit LisaServing(Served served);
  static Served read(const std::filesystem::path& path);

  std::shared_ptr<const Served> served_;
  ItemScorer scorer_;
};

}  // namespace tally::recsys
