#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tally/nn/training/trainer.h"
#include "tally/recsys/evaluation/evaluate.h"
#include "tally/recsys/models/sequence_model.h"
#include "tally/recsys/record/run_directory.h"
#include "tally/recsys/run/console.h"
#include "tally/recsys/run/run_data.h"

namespace tally::recsys {

/// How a run ended.
struct RunOutcome {
  RunDirectory directory;
  nn::TrainingOutcome training = nn::TrainingOutcome::finished;
  std::vector<Evaluation> test;  ///< popularity, Markov, then the model at its best epoch; empty when interrupted
};

/// Trains the model of a config on its data, with baselines, validation, checkpoints and a final evaluation, in a
/// directory of its own, which is made after everything that can be wrong with the config and the data was checked.
/// `stop_requested` is asked after each step and while users are evaluated: the run then saves and returns; while the
/// data are read, before there is a run to go on with: then Stopped is thrown.
RunOutcome train_run(const RunConfig& config, Console& console, const StopRequested& stop_requested = {});

/// The same in a directory of one's choice, which must not hold a run: it is made when it is not there.
RunOutcome train_run(const RunConfig& config, const RunDirectory& directory, Console& console,
                     const StopRequested& stop_requested = {});

/// Goes on with a run from its last checkpoint (from the start when there is none yet). The weights come out as those
/// of a run that was never interrupted, bit for bit.
RunOutcome resume_run(const RunDirectory& directory, Console& console, const StopRequested& stop_requested = {},
                      const Tables& tables = standard());

}  // namespace tally::recsys
