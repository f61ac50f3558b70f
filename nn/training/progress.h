#pragma once

#include <cstdint>
#include <optional>

#include "tally/core/io/json.h"

namespace tally::nn {

/// Where a training stands. With the weights and the optimizer's state it is all that resuming needs: every random draw
/// is keyed by seed, epoch and step.
struct TrainerProgress {
  std::int64_t epoch = 0;  ///< of the next step
  std::int64_t batch = 0;  ///< within the epoch, of the next step of the task
  std::int64_t step = 0;   ///< steps of the optimizer done
  double epoch_loss = 0;   ///< sum over the targets of this epoch so far
  std::int64_t epoch_targets = 0;
  std::optional<double> best_score;  ///< of the best validation; none before the first
  std::int64_t best_epoch = 0;       ///< 0 before the first validation
  std::int64_t validations_since_best = 0;
  bool validation_due = false;  ///< of the epoch that has ended: the training was stopped in it
  bool finished = false;

  /// Members by name; a score that is not there is null.
  Json to_json() const;
  /// Reads also the -1 that earlier builds wrote before the first validation, and what they had not.
  static TrainerProgress from_json(const Json& json);
};

}  // namespace tally::nn
