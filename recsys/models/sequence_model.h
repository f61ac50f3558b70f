#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tally/nn/module.h"
#include "tally/recsys/data/sequences.h"
#include "tally/recsys/models/prepared.h"
#include "tally/recsys/models/recurrent_model.h"

namespace tally::recsys {

/// A figure of a model's own for the log, beside its loss.
struct Measure {
  std::string name;
  double value;
};

/// A model that reads item sequences, as the trainer and the evaluation see it. Models themselves are plain modules;
/// this type-erased interface is made once, where a config names one (sequence_model_of.h, tables.h).
///
/// A step calls prepare() once, then for each shard encode(), candidate_table() and auxiliary_loss() with the prepared
/// values; gradients flow back through them. Evaluation does the same with all items prepared.
class SequenceModel {
 public:
  virtual ~SequenceModel() = default;

  virtual std::string name() const = 0;
  virtual std::int64_t num_items() const = 0;
  /// D, of hidden states and candidate table.
  virtual std::int64_t width() const = 0;
  /// Longest history it reads; longer ones are cut to their last items.
  virtual std::int64_t window() const = 0;
  /// How many events before its window it reads besides, in Sequences::before: mostly none. They may be fewer, or
  /// absent.
  virtual std::int64_t events_before() const = 0;

  /// Does it need the times of events (Sequences::times)?
  virtual bool reads_times() const = 0;

  /// Do rows see what follows them? Such a model is trained on prefix samples alone, whose loss is at the last row.
  virtual bool looks_ahead() const = 0;

  /// Does prepare() return anything?
  virtual bool prepares() const = 0;
  /// What depends on parameters and on which items there are, but not on the sequences: tables of inner products,
  /// quantized embeddings [items.count(), ...].
  virtual Prepared prepare(const BatchItems& items) const = 0;
  /// Do the rows of candidate_table() need what is computed of prepared items? Then a loss over all items prepares all
  /// of them, else those of its batch, with BatchItems::all_candidates().
  virtual bool prepares_candidates() const = 0;
  /// Hidden state after each item, [T, D].
  virtual Var encode(const Sequences& batch, const Prepared& prepared, const nn::Context& context) const = 0;
  /// Output embeddings: an item's score is their inner product with the hidden state. Either [num_items(), D], a row
  /// for every item, or [items.count(), D], one for each that was prepared, unless items.all_candidates().
  virtual Var candidate_table(const Prepared& prepared) const = 0;
  /// A further part of the loss (commitment to codewords, say), as a sum over the rows of `batch`; the step divides it
  /// by the rows of all shards. Undefined: none. `targets` i32 [T]: the item that follows each, -1 where no loss is
  /// taken.
  virtual Var auxiliary_loss(const Sequences& batch, const Tensor& targets, const Prepared& prepared,
                             const nn::Context& context) const = 0;

  /// Told when weights of another model were copied into this one, before training: what began as a function of such
  /// weights (codebooks as k-means of the embeddings) begins as that of the new ones. Mostly nothing.
  virtual void initialize_from_weights(RngKey key) = 0;

  /// Told before the first step of every epoch but the first: what was not used may begin anew. A resumed training is
  /// told the same. Mostly nothing.
  virtual void epoch_begins(std::int64_t epoch, RngKey key) = 0;

  /// Paths of the tensors of state() that have a row for each item: what is matched by the items' ids when weights go
  /// to a model of other items.
  virtual std::vector<std::string> item_tensors() const = 0;

  /// For the log of each epoch: how LISA's codewords are used, say. Mostly empty.
  virtual std::vector<Measure> measures() const = 0;

  /// The weights as they are now, in the form that takes one event at a time: a form of the model's own; layer by
  /// layer, where they allow it (layered_recurrence.h); else the window is read again (window_recurrence.h). Throws
  /// ValueError for settings that rule out the model's own.
  virtual std::shared_ptr<const RecurrentModel> recurrent() const = 0;

  virtual nn::ParameterList parameters() = 0;
  /// Parameters and buffers, for saving.
  virtual nn::TensorList state() = 0;
  /// The same, for reading: shared with the model.
  virtual std::vector<Tensor> weights() const = 0;
};

}  // namespace tally::recsys
