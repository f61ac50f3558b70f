#pragma once

#include <optional>

#include "tally/nn/recurrent.h"
#include "tally/recsys/models/gru4rec_options.h"
#include "tally/recsys/models/recurrent_model.h"
#include "tally/recsys/models/window.h"

namespace tally::recsys {

/// Hidasi et al., "Session-based recommendations with recurrent neural networks", ICLR 2016 (arXiv 1511.06939): gated
/// recurrent units over item embeddings. As in Klenitskiy & Vasilev, RecSys 2023, every position of a user's history
/// predicts the next item, and the output is the last layer's state. (Their configuration says dropout 0.1, which
/// torch.nn.GRU applies between layers only: with one layer there is none.)
struct Gru4Rec {
  nn::Embedding items;
  nn::Dropout dropout;
  std::vector<nn::Gru> layers;
  std::optional<nn::Linear> dense;  ///< from states to rows that items are scored with
  nn::Parameter output;             ///< [items, embedding width], absent when tied
  std::int64_t window = 0;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("items", self.items);
    visit("dropout", self.dropout);
    visit("layers", self.layers);
    visit("dense", self.dense);
    visit("output", self.output);
    visit("window", self.window);
  }

  static Gru4Rec make(const Gru4RecOptions& options, RngKey key);
  /// [T, embedding width]; row t depends on the items of its sequence up to t.
  Var encode(const Sequences& batch, const nn::Context& context) const;
  /// One event at a time: gru4rec_recurrence.h. `weights` is a hash of all weights.
  std::shared_ptr<const RecurrentModel> recurrent(const std::string& name, std::uint64_t weights) const;
  /// States of the last layer to such rows.
  Var finish(const Var& states) const { return dense ? (*dense)(states) : states; }
  Var item_table() const { return output.defined() ? output.var() : items.table.var(); }
};

}  // namespace tally::recsys
