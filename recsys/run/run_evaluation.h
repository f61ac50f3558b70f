#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "tally/recsys/config/config.h"
#include "tally/recsys/evaluation/evaluate.h"

// What a config says about evaluation, made into options, targets and tables.

namespace tally::recsys {

/// The options that a config stands for, with its protocol and the rules of its data as the protocol line's beginning.
EvaluationOptions evaluation_options(const RunConfig& config, StopRequested stop_requested = {});
/// The targets of a part that a config evaluates: all of them, or a sample drawn once.
std::vector<Target> evaluated_targets(const RunConfig& config, const Split& split, Part part);

/// A table of evaluations for people: one row each, HR, NDCG and MRR at every cut-off.
std::string metrics_table(const std::vector<Evaluation>& evaluations);

/// The metric that a config selects models by. Throws ValueError for a cut-off that was not evaluated.
double metric_of(const Evaluation& evaluation, const MetricName& name);

/// The negatives of a sampled evaluation as an npy file: i32 [targets, count], item indices, row i belonging to
/// targets[i].
void write_negatives(const std::filesystem::path& path, const Split& split, Part part, std::span<const Target> targets,
                     const CandidateSampling& sampling);

}  // namespace tally::recsys
