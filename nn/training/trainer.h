#pragma once

#include <filesystem>
#include <functional>
#include <optional>

#include "tally/core/io/file.h"
#include "tally/core/stop.h"
#include "tally/nn/optim/optimizer.h"
#include "tally/nn/optim/schedule.h"
#include "tally/nn/training/progress.h"
#include "tally/nn/training/task.h"

namespace tally::nn {

/// What a trainer writes. An empty path: nothing.
struct TrainerFiles {
  std::filesystem::path last = {};  ///< checkpoint: directory of weights, optimizer, progress, replaced at each epoch
  std::filesystem::path best = {};  ///< directory of the weights of the best validation; of the last epoch without one
  std::filesystem::path log = {};   ///< a JSON object a line for each epoch and each validation

  /// `last`, `best` and `log.jsonl` in a directory.
  static TrainerFiles in(const std::filesystem::path& directory);
};

struct TrainerOptions {
  std::int64_t epochs = 100;
  std::int64_t evaluate_every = 1;    ///< epochs between validations
  std::int64_t patience = 10;         ///< validations without improvement before stopping; 0 never stops early
  std::int64_t checkpoint_steps = 0;  ///< steps between checkpoints, beside one after each epoch; 0 for none
  double clip_norm = 0;               ///< bound of the gradient's norm; 0 for none
  /// Steps of the task that make one of the optimizer, whose gradient is that of the mean over their targets; the last
  /// of an epoch takes those that are left. From the second on: the gradients, each times its targets, are added in
  /// order, and the sum is multiplied by 1 / all targets. Buffers change once, after the last.
  std::int64_t accumulate = 1;
  optim::LearningRate learning_rate = {};  ///< of each step; empty: as the optimizer has it
  bool trace_non_finite = false;           ///< look at every op's result, not only after a loss that is not finite
  RngKey key = {};                         ///< of the run: every draw of training follows from it
  TrainerFiles files = {};
};

struct StepReport {
  double loss = 0;  ///< mean over the targets
  std::int64_t targets = 0;
  std::int64_t rows = 0;  ///< that were computed
  double seconds = 0;
  double learning_rate = 0;
  double gradient_norm = 0;  ///< before clipping; 0 when not clipped
};

struct EpochReport {
  std::int64_t epoch = 0;  ///< counted from 1
  double loss = 0;
  std::int64_t targets = 0;
  double seconds = 0;           ///< of training in this process (after resuming: since then)
  std::int64_t timed_rows = 0;  ///< rows that these seconds went into
};

/// What a program does beside training. All may be empty.
struct TrainerHooks {
  /// Between gradients and step, before the gradients are clipped: may look at both, and change them.
  std::function<void(const TrainerProgress&, const ParameterList&, Gradients&)> on_gradients = {};
  std::function<void(const TrainerProgress&, const StepReport&)> on_step = {};
  /// `record` is the epoch's line of the log, to which members may be added.
  std::function<void(const TrainerProgress&, const EpochReport&, Json& record)> on_epoch = {};
  /// After its line.
  std::function<void(const TrainerProgress&, const Validation&, double seconds)> on_validation = {};
  std::function<void(const TrainerProgress&)> on_best = {};  ///< the weights are the best so far
  StopRequested stop_requested = {};  ///< asked after each step; a validation may ask it too, and throw Stopped
};

enum class TrainingOutcome { finished, interrupted };

/// Runs epochs of a task's steps with validation, early stopping, checkpoints and a log. Interrupted between steps, or
/// by Stopped out of a validation, it saves and returns; started again with the saved progress it goes on to the same
/// bits.
class Trainer {
 public:
  /// Task and optimizer must outlive this. Freezes the parameters of frozen groups, so that no gradient of them is
  /// computed. Throws ValueError as Optimizer::check_groups, ConfigError for options outside their domain and for a
  /// task without steps.
  Trainer(Task& task, optim::Optimizer& optimizer, TrainerOptions options, TrainerHooks hooks = {});

  /// Steps of the optimizer in an epoch, for schedules.
  std::int64_t steps_per_epoch() const;

  /// Loads the last checkpoint, if there is one, and drops from the log what will be logged again. Nothing, when there
  /// is none: training then begins with the model as it is. Throws IoError as load_checkpoint.
  std::optional<TrainerProgress> restore();

  /// Goes on from `progress`, which always says how far it came.
  TrainingOutcome run(TrainerProgress& progress);

 private:
  TaskStep task_step(const TrainerProgress& progress, std::int64_t index);
  TaskStep gradients_of(const TrainerProgress& progress, std::int64_t parts);
  StepReport step(TrainerProgress& progress);
  /// Log and bookkeeping at the end of an epoch; says whether a validation is due.
  void end_epoch(TrainerProgress& progress, double seconds, std::int64_t timed_rows);
  /// The validation that is due, if one is; sets `finished`. Throws Stopped, then with `progress` as it was.
  void conclude_epoch(TrainerProgress& progress);
  void validate(TrainerProgress& progress);
  void keep_best(const TrainerProgress& progress);
  void save(const TrainerProgress& progress);

  Task& task_;
  optim::Optimizer& optimizer_;
  TrainerOptions options_;
  TrainerHooks hooks_;
  std::optional<LineWriter> log_;
};

}  // namespace tally::nn
