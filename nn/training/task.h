#pragma once

#include <cstdint>
#include <functional>

#include "tally/autograd/stages.h"
#include "tally/core/io/json.h"
#include "tally/core/random.h"
#include "tally/nn/buffer_updates.h"
#include "tally/nn/module.h"

namespace tally::nn {

/// Which step of a task is asked for.
struct StepPlace {
  std::int64_t epoch = 0;  ///< counted from 0
  std::int64_t index = 0;  ///< within the epoch, counted from 0
  RngKey key = {};         ///< every random draw of the step follows from it
  /// Sees every tape before it records (run_stages); mostly empty.
  std::function<void(Tape&)> configure = {};
};

/// What a step gives the trainer: loss, a mean over the targets, its gradients, and how much they stand for.
struct TaskStep : StageResult {
  std::int64_t targets = 1;    ///< what the loss is a mean over: examples, tokens
  std::int64_t rows = 0;       ///< what was computed, for figures of speed
  BufferUpdates updates = {};  ///< posted by the forward pass, of shards in their order
};

/// What a validation gives the trainer.
struct Validation {
  double score = 0;              ///< finite, higher is better, of any sign
  Json record = Json::object();  ///< further members of its line in the log; none: `score` alone
};

/// Something to be trained: a model, its data, and how a step of it is computed. A Trainer does the rest. Random draws,
/// order of the data included, follow from the place of a step alone: then a training that was interrupted goes on to
/// the bits of one that was not.
class Task {
 public:
  virtual ~Task() = default;

  /// Steps in an epoch, at least one.
  virtual std::int64_t steps() const = 0;
  /// Examples in an epoch, for the log.
  virtual std::int64_t samples() const = 0;
  /// Loss and gradients of the parameters as they are.
  virtual TaskStep step(const StepPlace& place) = 0;

  /// Is there a validation? Without one all epochs are run, and the last is the best.
  virtual bool validates() const { return false; }
  /// The model as it is after that many epochs, on data that it is not trained on.
  virtual Validation validate([[maybe_unused]] std::int64_t epochs) { return {}; }

  virtual ParameterList parameters() = 0;
  /// Parameters and buffers: what a checkpoint holds beside the optimizer's state.
  virtual TensorList state() = 0;
  /// Says whose the weights are (model, data); a checkpoint of another identity is refused.
  virtual Json identity() const { return Json::object(); }
  /// Values that identity() has in checkpoints of builds that did not know the members yet.
  virtual Json identity_defaults() const { return Json::object(); }
};

}  // namespace tally::nn
