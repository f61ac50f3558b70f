#pragma once

#include <functional>
#include <memory>

#include "tally/nn/training/task.h"
#include "tally/recsys/training/training_step.h"

namespace tally::recsys {

/// The training of a sequence model on batches of users' histories, as a task of nn::Trainer.
class RecommenderTask final : public nn::Task {
 public:
  /// Score of the model after so many epochs.
  using Validate = std::function<nn::Validation(std::int64_t epochs)>;

  /// Model and batches must outlive this. `loss` nullptr: cross-entropy over all
  /// items. `validate` may be empty. Throws ConfigError for a model that looks ahead on other than prefix samples.
  /// Identity and its defaults as in nn::Task.
  RecommenderTask(SequenceModel& model, const TrainingBatches& batches, std::shared_ptr<const Loss> loss = nullptr,
                  Validate validate = {}, Json identity = Json::object(), Json identity_defaults = Json::object());

  std::int64_t steps() const override { return batches_.batches_per_epoch(); }
  std::int64_t samples() const override { return batches_.samples_per_epoch(); }
  nn::TaskStep step(const nn::StepPlace& place) override;

  bool validates() const override { return validate_ != nullptr; }
  nn::Validation validate(std::int64_t epochs) override { return validate_(epochs); }

  nn::ParameterList parameters() override { return model_.parameters(); }
  nn::TensorList state() override { return model_.state(); }
  Json identity() const override { return identity_; }
  Json identity_defaults() const override { return identity_defaults_; }

 private:
  SequenceModel& model_;
  const TrainingBatches& batches_;
  std::shared_ptr<const Loss> loss_;
  Validate validate_;
  Json identity_, identity_defaults_;
};

}  // namespace tally::recsys
