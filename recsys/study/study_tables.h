#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tally/core/report/paired_comparison.h"
#include "tally/core/report/table.h"
#include "tally/recsys/study/study.h"

namespace tally::recsys {

/// What is there of a study: for each run and seed its record, nothing where it has not begun.
using StudyRecords = std::vector<std::vector<std::optional<RunRecord>>>;

StudyRecords read_study_records(const Study& study, const std::filesystem::path& output);

/// A figure of the finished runs among `seeds`, those that have it.
std::vector<double> finished_values(const std::vector<std::optional<RunRecord>>& seeds, const std::string& figure);

/// A run against the one that the study compares with, on one metric: per user the mean over the seeds that both
/// finished, paired by user.
struct StudyComparison {
  std::int64_t seeds = 0;
  PairedComparison t_test;
  PairedComparison bootstrap;
};

/// Nothing when no seed is finished by both, or when the two were not tested alike: other data, another evaluation
/// section (cut-offs apart), or other users.
std::optional<StudyComparison> compare_runs(const std::vector<std::optional<RunRecord>>& treatment,
                                            const std::vector<std::optional<RunRecord>>& control,
                                            const std::string& metric);

/// Baselines and runs with mean and spread of the metrics over the seeds.
Table results_table(const Study& study, const StudyRecords& records);
/// Differences from `compare_to` with intervals and p-values.
Table comparison_table(const Study& study, const StudyRecords& records);
/// Epochs, times, memory, parameters and speed: means over the seeds.
Table cost_table(const Study& study, const StudyRecords& records);
/// A row for each run and seed, figures exact.
Table seeds_table(const Study& study, const StudyRecords& records);

/// Writes study.md, study.csv (a row for each run and metric), seeds.csv and plot-N.svg into `output`.
void write_study(const Study& study, const std::filesystem::path& output);

}  // namespace tally::recsys
