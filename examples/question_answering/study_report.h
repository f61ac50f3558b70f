#pragma once

#include <vector>

#include "examples/question_answering/study_run.h"
#include "tally/core/report/plot.h"
#include "tally/core/report/table.h"

// Tables and plots of what is there of a study.

namespace question_answering {

/// Mean of some figures, and their spread.
struct Spread {
  double mean = 0;
  double deviation = 0;  ///< standard deviation of the sample; 0 for one figure
  double least = 0;
};
Spread spread_of(const std::vector<double>& values);

/// A reader at the learning rate that was chosen for it.
struct ReaderResults {
  std::string reader;
  double learning_rate = 0;
  std::vector<RunResult> seeds;  ///< those that are finished
};

/// The rate of the best mean validation among runs of one reader; the smaller of two that are as good. There must be
/// one.
double chosen_rate(const std::vector<RunResult>& runs);

/// Readers in the order of the config, those with a finished run: its runs at the rate that is best on validation.
std::vector<ReaderResults> chosen_results(const StudyConfig& config, const std::vector<RunResult>& finished);

/// Test accuracy in percent, tasks by readers, the mean over the tasks with its spread over the seeds in the last row.
tally::Table accuracy_table(const QuestionSet& set, const std::vector<ReaderResults>& results);
/// The config's gaps in points of mean accuracy: over the seeds that both readers have, and over the tasks.
tally::Table gap_table(const StudyConfig& config, const std::vector<ReaderResults>& results);
/// A row for each run.
tally::Table run_table(const std::vector<RunResult>& finished);

tally::Plot accuracy_plot(const StudyConfig& config, const QuestionSet& set, const std::vector<ReaderResults>& results);
tally::Plot learning_plot(const StudyConfig& config, const std::vector<ReaderResults>& results);

/// results.md, accuracy.csv, gaps.csv, runs.csv, accuracy.svg and learning.svg in the study's output. Returns the text
/// of results.md.
std::string write_report(const StudyConfig& config, const QuestionSet& set, const std::vector<RunResult>& finished);

}  // namespace question_answering
