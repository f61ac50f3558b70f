#pragma once

#include <vector>

#include "examples/question_answering/question_model.h"
#include "tally/nn/training/task.h"

namespace question_answering {

/// Right answers of a part of a set, task by task.
struct Accuracy {
  std::vector<std::int64_t> right, asked;
  /// Share of right answers; 0 for a task without questions.
  std::vector<double> by_task() const;
  /// Mean over the tasks.
  double mean() const;
};

/// The model on these documents, in parallel over shards.
Accuracy measure_accuracy(const QuestionModel& model, const std::vector<QuestionShard>& shards, std::size_t tasks);

struct QuestionTaskOptions {
  std::int64_t batch_questions = 32;
  std::int64_t shard_words = 2048;
};

/// The training of a model on the documents of a set, as a task of nn::Trainer: cross-entropy of the answers, batches
/// of whole documents in an order of each epoch's own, validation by accuracy.
class QuestionTask final : public tally::nn::Task {
 public:
  /// Model and set must outlive this. Throws ConfigError for batches that a document with all its questions does not
  /// fit into. `key` draws the orders.
  QuestionTask(QuestionModel& model, const QuestionSet& set, const QuestionTaskOptions& options, tally::RngKey key,
               tally::Json identity);

  std::int64_t steps() const override { return steps_; }
  std::int64_t samples() const override { return questions_; }
  tally::nn::TaskStep step(const tally::nn::StepPlace& place) override;

  bool validates() const override { return !validation_.empty(); }
  tally::nn::Validation validate(std::int64_t epochs) override;

  tally::nn::ParameterList parameters() override { return tally::nn::parameters(model_); }
  tally::nn::TensorList state() override { return tally::nn::state(model_); }
  tally::Json identity() const override { return identity_; }

 private:
  /// Sets the order of the documents in an epoch, and where its batches begin.
  void arrange(std::int64_t epoch);

  QuestionModel& model_;
  const QuestionSet& set_;
  QuestionTaskOptions options_;
  tally::RngKey key_;
  tally::Json identity_;
  std::vector<QuestionShard> validation_;
  std::int64_t questions_ = 0, steps_ = 0;
  std::int64_t arranged_ = -1;  ///< the epoch that the following are of
  std::vector<std::int64_t> order_, begins_;
};

}  // namespace question_answering
