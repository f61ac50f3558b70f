#pragma once

#include <memory>

#include "tally/recsys/evaluation/ranker.h"
#include "tally/recsys/models/sequence_model.h"

namespace tally::recsys {

class PreparedModel;

/// A sequence model as a ranker: the last hidden state of each history against the item table. Histories longer than
/// the model's window are cut to their end; an empty one scores every item 0. A history's scores are the same bits
/// whatever else is in the block. What the model prepares is computed when scores are first asked for, and again after
/// its weights have changed. `model` must outlive the ranker. Copies share what was prepared.
class NeuralRanker {
 public:
  explicit NeuralRanker(const SequenceModel& model);

  std::string name() const;
  std::int64_t num_items() const;
  /// f32 [histories.count(), num_items()].
  Tensor score(const Sequences& histories) const;

  /// f32 [num_items(), D]: a score is the inner product of a user's vector and an item's.
  Tensor item_vectors() const;
  /// f32 [histories.count(), D]; zeros for an empty history.
  Tensor user_vectors(const Sequences& histories) const;

 private:
  std::shared_ptr<PreparedModel> model_;
};

/// Ranker(NeuralRanker(model)).
Ranker make_ranker(const SequenceModel& model);

}  // namespace tally::recsys
