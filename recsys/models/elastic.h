#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tally/nn/blocks/transformer.h"
#include "tally/recsys/models/code_routing.h"
#include "tally/recsys/models/embedding_form.h"
#include "tally/recsys/models/interest_retrieval.h"
#include "tally/recsys/models/layered_recurrence.h"
#include "tally/recsys/models/sequence_model.h"

namespace tally::recsys {

/// From a layer's experts and what they gathered to the next layer's: norm(experts + output(gathered)), as Luna has it
/// (Ma et al., arXiv 2106.01540).
struct CarriedExperts {
  nn::Linear output;
  nn::LayerNorm norm;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("output", self.output);
    visit("norm", self.norm);
  }
  /// experts [k, width] of all sequences or [N, k, width], gathered [N, k, width].
  Var operator()(const Var& experts, const Var& gathered) const;
};

/// What a layer of dispatcher attention is given.
struct LayerExperts {
  Var experts;          ///< [k, width] of all sequences, or [N, k, width]
  Var queries, source;  ///< [T, width]
  Tensor slots;         ///< i64 that were read for these experts; undefined where none were
};

/// ELASTIC (Deng et al., arXiv 2408.09380; docs/elastic.md): SASRec's frame around layers in which k experts gather the
/// history and its rows read them. Bidirectional as in the paper, or causal, which trains on all positions and streams.
/// With another attention, it is a rival in the same frame and under the same mask.
///
/// Experts that are retrieved, or chosen by codes, are those of a sequence's own rows in the bidirectional model. A
/// causal row must not read what a later one helped to choose: there they are those of the events before the sequence.
struct Elastic {
  nn::Embedding items, positions;
  nn::Dropout dropout;
  std::vector<nn::TransformerBlock> blocks;
  nn::LayerNorm norm;
  nn::Parameter output;   ///< [items, width], absent when tied
  nn::Parameter experts;  ///< [k, width] of all layers; absent where each has its own, or retrieves
  std::optional<InterestRetrieval> retrieval;
  std::optional<CodeRouting> routing;
  std::vector<CarriedExperts> carried;  ///< from each layer but the last to the next, or none
  std::int64_t window = 0;
  PositionAlignment alignment = PositionAlignment::start;
  EmbeddingForm embeddings = {};
  bool causal = true;
  std::int64_t revive_epochs = 0;     ///< of retrieval
  std::int64_t retrieval_window = 0;  ///< events that choose a causal model's experts
  static constexpr void fields(auto& self, auto&& visit) {
    visit("items", self.items);
    visit("positions", self.positions);
    visit("dropout", self.dropout);
    visit("blocks", self.blocks);
    visit("norm", self.norm);
    visit("output", self.output);
    visit("experts", self.experts);
    visit("retrieval", self.retrieval);
    visit("routing", self.routing);
    visit("carried", self.carried);
    visit("window", self.window);
    visit("alignment", self.alignment);
    visit("embeddings", self.embeddings);
    visit("causal", self.causal);
    visit("revive_epochs", self.revive_epochs);
    visit("retrieval_window", self.retrieval_window);
  }

  static Elastic make(const ElasticOptions& options, RngKey key);
  bool looks_ahead() const { return !causal; }
  std::int64_t events_before() const { return retrieval_window; }
  /// [T, width]. Appends what each layer is given to `seen`, for reports; without dispatcher attention that throws
  /// ValueError.
  Var encode(const Sequences& batch, const nn::Context& context, std::vector<LayerExperts>* seen = nullptr) const;

  // Its parts: layered_recurrence.h.
  Var embed(const Tensor& row_items, const Tensor& row_positions, const nn::Context& context) const;
  Var finish(const Var& x) const { return embeddings.finished(norm, x); }
  Var item_table() const { return output.defined() ? output.var() : items.table.var(); }
  /// Chosen experts change as events leave the window.
  bool streams() const { return !retrieval && !routing; }
  /// A copy with the experts in every layer.
  Elastic for_events() const;
  /// Settings in words that no tensor shows.
  std::string layout() const;

  /// Dead slots begin anew, where that is asked for.
  void epoch_begins(std::int64_t epoch, RngKey key);
  /// Of retrieval, since the last revival: `memory_read`, `memory_divergence`, `memory_query_norm`, `memory_key_norm`
  /// (MemoryUse). Of routing by codes, `codewords_used` and `codeword_divergence`, likewise.
  std::vector<Measure> measures() const;

 private:
  /// Embeddings alone [T, width].
  Var item_rows(const Tensor& row_items) const;
};

}  // namespace tally::recsys
