#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "examples/question_answering/study_config.h"

namespace question_answering {

/// One training of a study.
struct StudyRun {
  std::string reader;  ///< its name in the study
  double learning_rate = 0;
  std::int64_t seed = 0;

  /// "softmax-rate0.003-seed1"
  std::string directory() const;
};

/// What came of it, as its result.json has it.
struct RunResult {
  StudyRun run;
  double validation = 0;                    ///< accuracy of the best epoch, mean over the tasks
  std::vector<double> test;                 ///< accuracy of its weights, task by task
  std::vector<double> validation_by_epoch;  ///< mean over the tasks
  std::int64_t best_epoch = 0, parameters = 0;
  double seconds = 0;                    ///< of training, without validation
  double words_per_second = 0;           ///< of documents and questions, in training
  double first_loss = 0, last_loss = 0;  ///< of the first epoch and the last
  std::string diverged;                  ///< what was not finite and ended the training; mostly empty

  double test_mean() const;
};

/// A data set and its contents in one number, so that a run is not taken for one of other data.
struct StudyData {
  QuestionSet set;
  std::string fingerprint;
};
StudyData read_study_data(const DataOptions& options);

/// What a program does beside a training. Both may be empty.
struct RunHooks {
  std::function<bool()> stop_requested;  ///< asked after each step
  std::function<void(const StudyRun& run, std::int64_t epoch, double accuracy)> on_validation;
};

/// Trains a run in its directory below the study's output, from where an earlier call was stopped; a finished one is
/// read. Nothing when it was stopped. Throws ConfigError when the directory has a run of other settings.
std::optional<RunResult> run_training(const StudyConfig& config, const StudyData& data, const StudyRun& run,
                                      const RunHooks& run_hooks = {});
/// Of a finished run, nothing for others.
std::optional<RunResult> find_result(const StudyConfig& config, const StudyData& data, const StudyRun& run);

}  // namespace question_answering
