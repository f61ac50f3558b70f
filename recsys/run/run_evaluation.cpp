#include "tally/recsys/run/run_evaluation.h"

#include <fmt/format.h>

#include <algorithm>

#include "tally/core/io/npy.h"
#include "tally/core/parallel.h"
#include "tally/recsys/run/run_data.h"

namespace tally::recsys {

EvaluationOptions evaluation_options(const RunConfig& config, StopRequested stop_requested) {
  const EvaluationConfig& wanted = config.evaluation;
  EvaluationOptions options;
  options.seen = wanted.filter_seen;
  options.candidates = wanted.candidates;
  options.ties = wanted.rank_ties;
  options.cutoffs = wanted.topk;
  if (const std::optional<SamplingMode> mode = parse_mode(wanted.mode)) {
    using Sampling = CandidateSampling;
    options.sampled = Sampling{
        .count = mode->count,
        .distribution = mode->popularity ? Sampling::Distribution::popularity : Sampling::Distribution::uniform,
        .exclude = wanted.negatives_exclude,
        .replacement = wanted.negatives_replacement,
        .seed = static_cast<std::uint64_t>(wanted.sampling_seed)};
  }
  options.rules = protocol_label(config) + ", " + data_rules(config.data);
  options.stop_requested = std::move(stop_requested);
  return options;
}

std::vector<Target> evaluated_targets(const RunConfig& config, const Split& split, Part part) {
  const std::int64_t most = part == Part::test ? config.evaluation.test_users : config.evaluation.valid_users;
  const std::vector<Target>& all = split.targets(part);
  if (most == 0 || most >= static_cast<std::int64_t>(all.size())) return all;
  const RngKey key{static_cast<std::uint64_t>(config.evaluation.sampling_seed), 0};
  return sample_targets(all, most, key.fold_in("users").fold_in(name_of(part)));
}

double metric_of(const Evaluation& evaluation, const MetricName& name) {
  const auto& all = evaluation.metrics;
  const auto metrics = std::find_if(all.begin(), all.end(), [&](const Metrics& each) { return each.k == name.k; });
  check<ValueError>(metrics != all.end(), "metric_of", "needs a cut-off that was evaluated; got ", name.k);
  return name.kind == "NDCG" ? metrics->ndcg : name.kind == "MRR" ? metrics->mrr : metrics->hit_rate;
}

std::string metrics_table(const std::vector<Evaluation>& evaluations) {
  const Evaluation& first = evaluations.front();
  std::size_t width = 8, names = 12;
  for (const Evaluation& evaluation : evaluations) names = std::max(names, evaluation.ranker.size());
  std::string text(names, ' ');
  for (const Metrics& metrics : first.metrics) width = std::max(width, first.metric_name("NDCG", metrics.k).size());
  for (const Metrics& metrics : first.metrics) {
    for (const char* name : {"HR", "NDCG", "MRR"}) {
      text += fmt::format("  {:>{}}", first.metric_name(name, metrics.k), width);
    }
  }
  text += '\n';
  for (const Evaluation& evaluation : evaluations) {
    text += fmt::format("{:<{}}", evaluation.ranker, names);
    for (const Metrics& metrics : evaluation.metrics) {
      for (const double value : {metrics.hit_rate, metrics.ndcg, metrics.mrr}) {
        text += fmt::format("  {:{}.4f}", value, width);
      }
    }
    text += '\n';
  }
  return text;
}

void write_negatives(const std::filesystem::path& path, const Split& split, Part part, std::span<const Target> targets,
                     const CandidateSampling& sampling) {
  const CandidateSampler sampler(split, part, sampling);
  const auto users = static_cast<std::int64_t>(targets.size());
  Tensor negatives({users, sampling.count}, DType::i32);
  auto* out = negatives.mutable_data<std::int32_t>();
  parallel_for(users, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::vector<std::int32_t> drawn = sampler.draw(targets[static_cast<std::size_t>(i)]);
      std::copy(drawn.begin(), drawn.end(), out + i * sampling.count);
    }
  });
  save_npy(path, negatives);
}

}  // namespace tally::recsys
