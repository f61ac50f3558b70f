#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "tally/nn/training/trainer.h"
#include "tally/recsys/run/console.h"
#include "tally/recsys/study/study.h"

namespace tally::recsys {

enum class StudyState { not_begun, interrupted, finished };

/// One training of a study and how far it is.
struct StudyItem {
  const StudyRun* run = nullptr;
  std::int64_t seed = 0;
  RunDirectory directory;
  StudyState state = StudyState::not_begun;

  /// "sasrec-seed1", as the directory.
  std::string label() const { return directory.path.filename().string(); }
};

/// Every training of a study, run by run, seeds within. With `only`, those of the runs named, or the single trainings
/// ("sasrec-seed1"). Throws ConfigError for a name that is neither.
std::vector<StudyItem> study_items(const Study& study, const std::filesystem::path& output,
                                   const std::vector<std::string>& only = {});

/// Throws ConfigError unless what the directories of these trainings hold is of this study: each recorded config equals
/// that of the study (sections, not `output` and `show_user`), and the data have the recorded hash. The message says
/// which keys differ.
void check_study_items(const std::vector<StudyItem>& items, const std::filesystem::path& output);

/// Trains what is not finished, one after the other: new ones from the start, interrupted ones from their last
/// checkpoint. Everything is checked before the first step. After each the tables and plots of the study are written.
/// When `stop_requested` says so the training at work saves, and the study returns; while data are read, it throws
/// Stopped.
nn::TrainingOutcome run_study(const Study& study, const std::filesystem::path& output,
                              const std::vector<std::string>& only, Console& console,
                              const StopRequested& stop_requested = {});

}  // namespace tally::recsys
