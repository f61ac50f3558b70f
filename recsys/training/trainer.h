#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "tally/core/json.h"
#include "tally/nn/optim/optimizer.h"
#include "tally/nn/optim/schedule.h"
#include "tally/recsys/training/training_step.h"

namespace tally::recsys {

struct TrainerOptions {
  std::int64_t epochs = 100;
  std::int64_t evaluate_every = 1;    ///< epochs between validations
  std::int64_t patience = 10;         ///< validations without improvement before stopping; 0 never stops early
  std::int64_t checkpoint_steps = 0;  ///< steps between checkpoints, beside one after each epoch; 0 for none
  double clip_norm = 0;               ///< bound of the gradient's norm; 0 for none
  optim::Schedule schedule;
  TrainingLoss loss;
  bool trace_non_finite = false;
  RngKey key;  ///< of the run: every draw of training follows from it
};

/// Where a run stands. With the weights and the optimizer's state it is all that resuming needs: every random draw is
/// keyed by seed, epoch and step.
struct TrainerProgress {
  std::int64_t epoch = 0;  ///< of the next step
  std::int64_t batch = 0;  ///< within the epoch, of the next step
  std::int64_t step = 0;   ///< steps done
  double epoch_loss = 0;   ///< sum over the targets of this epoch so far
  std::int64_t epoch_targets = 0;
  double best_score = -1;  ///< of the best validation; -1 before the first
  std::int64_t best_epoch = 0;
  std::int64_t validations_since_best = 0;
  bool finished = false;

  Json to_json() const;
  static TrainerProgress from_json(const Json& json);
};

struct StepReport {
  double loss = 0;  ///< mean over the batch's targets
  std::int64_t targets = 0;
  std::int64_t rows = 0;  ///< events that were encoded
  double seconds = 0;
  double learning_rate = 0;
  double gradient_norm = 0;  ///< before clipping; 0 when not clipped
};

struct EpochReport {
  std::int64_t epoch = 0;  ///< counted from 1
  double loss = 0;
  std::int64_t targets = 0;
  double seconds = 0;           ///< of training in this process (after resuming: since then)
  std::int64_t timed_rows = 0;  ///< events that these seconds went into
};

/// What a run does beside training. All may be empty.
struct TrainerHooks {
  /// Score of the model on validation data, higher is better. Called with the epochs done. Empty, for protocols without
  /// a validation part: all epochs are run, and the last is the best.
  std::function<double(std::int64_t epochs)> validate;
  std::function<void(const TrainerProgress&, const StepReport&)> on_step;
  std::function<void(const TrainerProgress&, const EpochReport&)> on_epoch;
  std::function<void(const TrainerProgress&)> on_best;  ///< the weights are the best so far
  std::function<void(const TrainerProgress&)> save;     ///< write a checkpoint
  std::function<bool()> stop_requested;                 ///< asked after each step
};

enum class TrainingOutcome { finished, interrupted };

/// Runs epochs of training steps with validation and early stopping. Interrupted between steps it saves and returns;
/// started again with the saved progress it goes on to the same bits.
class Trainer {
 public:
  Trainer(SequenceModel& model, optim::Optimizer& optimizer, const TrainingBatches& batches,
          const TrainerOptions& options, TrainerHooks hooks);

  TrainingOutcome run(TrainerProgress& progress);

 private:
  StepReport step(TrainerProgress& progress);
  /// Validation and bookkeeping at the end of an epoch; sets `finished`.
  void end_epoch(TrainerProgress& progress, double seconds, std::int64_t timed_rows);

  SequenceModel& model_;
  optim::Optimizer& optimizer_;
  const TrainingBatches& batches_;
  TrainerOptions options_;
  TrainerHooks hooks_;
};

}  // namespace tally::recsys
