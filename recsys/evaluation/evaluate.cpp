#include "tally/recsys/evaluation/evaluate.h"

#include <fmt/format.h>

#include <algorithm>

#include "tally/core/error.h"
#include "tally/core/parallel.h"

namespace tally::recsys {

namespace {

constexpr std::int64_t kScoresPerBlock = std::int64_t{1} << 22;
constexpr std::int64_t kRanksPerTask = 8;

std::string protocol_line(const Split& split, std::int64_t items, const EvaluationOptions& options) {
  const std::string rules = options.rules.empty() ? "" : options.rules + ", ";
  if (options.sampled) {
    return fmt::format("{}{}, ranked among {}, ties={}", rules, split.name(), options.sampled->description(),
                       word_of(options.ties));
  }
  return fmt::format("{}{}, full ranking over {} {}items, seen={}, ties={}", rules, split.name(), items,
                     options.candidates == Candidates::train ? "training " : "", word_of(options.seen),
                     word_of(options.ties));
}

void check_target_scores(const Split& split, const Target& target, std::span<const float> scores) {
  const std::size_t bad = first_non_finite(scores);
  if (bad == scores.size()) return;
  const Interactions& data = split.data();
  fail<ValueError>("evaluate", "needs finite scores; got ", scores[bad], " for user '", data.users.name(target.user),
                   "' and item '", data.items.name(static_cast<std::int32_t>(bad)), "'");
}

}  // namespace

std::int64_t users_per_block(std::int64_t num_items) {
  return std::clamp<std::int64_t>(kScoresPerBlock / std::max<std::int64_t>(num_items, 1), 1, 256);
}

Evaluation evaluate(const Ranker& ranker, const Split& split, Part part, const EvaluationOptions& options) {
  return evaluate(ranker, split, part, split.targets(part), options);
}

Evaluation evaluate(const Ranker& ranker, const Split& split, Part part, std::span<const Target> targets,
                    const EvaluationOptions& options) {
  const std::int64_t items = split.data().num_items();
  check<ShapeError>(ranker.num_items() == items, "evaluate", "needs a ranker of the data's ", items, " items; got ",
                    ranker.name(), " of ", ranker.num_items());
  const std::vector<std::int64_t> counts = split.training_counts();
  std::vector<std::uint8_t> candidates;
  if (options.candidates == Candidates::train) {
    for (const std::int64_t count : counts) candidates.push_back(count > 0);
  }

  std::optional<CandidateSampler> sampler;
  if (options.sampled) {
    check_candidates(split, part, targets, *options.sampled);
    sampler.emplace(split, part, *options.sampled);
  }

  Evaluation result;
  result.ranker = ranker.name();
  if (options.sampled) result.ranking = options.sampled->label();
  result.part = part;
  result.targets.assign(targets.begin(), targets.end());
  result.ranks.resize(targets.size());
  const std::int64_t step = users_per_block(items);
  const auto n = static_cast<std::int64_t>(targets.size());
  for (std::int64_t block = 0; block < n; block += step) {
    check_stop(options.stop_requested, "evaluate");
    const std::int64_t size = std::min(step, n - block);
    const auto mine = targets.subspan(static_cast<std::size_t>(block), static_cast<std::size_t>(size));
    const Tensor scores = ranker.score(pack_histories(split, mine));
    const float* const rows = scores.data<float>();
    parallel_for(size, kRanksPerTask, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Target& target = mine[static_cast<std::size_t>(i)];
        const std::span row(rows + i * items, static_cast<std::size_t>(items));
        check_target_scores(split, target, row);
        TargetRank& rank = result.ranks[static_cast<std::size_t>(block + i)];
        if (sampler) {
          rank = rank_among(row, split.item(target), sampler->draw(target));
          continue;
        }
        const auto seen = options.seen == SeenFilter::full ? split.history(target) : std::span<const std::int32_t>();
        rank = rank_of(row, split.item(target), seen, candidates);
      }
    });
  }

  for (std::size_t i = 0; i < targets.size(); ++i) {
    result.unreachable += counts[static_cast<std::size_t>(split.item(targets[i]))] == 0;
    result.not_candidates += !result.ranks[i].is_candidate();
    result.tied += result.ranks[i].is_tied();
  }
  for (const std::int64_t k : options.cutoffs) result.metrics.push_back(mean_metrics(result.ranks, k, options.ties));
  const std::int64_t ranked =
      candidates.empty() ? items : static_cast<std::int64_t>(std::count(candidates.begin(), candidates.end(), 1));
  result.protocol = protocol_line(split, ranked, options);
  return result;
}

const Metrics& Evaluation::at(std::int64_t k) const {
  const auto found = std::find_if(metrics.begin(), metrics.end(), [k](const Metrics& m) { return m.k == k; });
  check<ValueError>(found != metrics.end(), "Evaluation", "was not asked for metrics at ", k);
  return *found;
}

std::string Evaluation::metric_name(const char* kind, std::int64_t k) const {
  return fmt::format("{}@{}{}", kind, k, ranking == "full" ? "" : '(' + ranking + ')');
}

std::string Evaluation::to_text() const {
  std::string text = fmt::format("{} {}:", ranker, name_of(part));
  for (const Metrics& m : metrics) {
    text += fmt::format("  {} {:.4f}  {} {:.4f}  {} {:.4f}", metric_name("HR", m.k), m.hit_rate,
                        metric_name("NDCG", m.k), m.ndcg, metric_name("MRR", m.k), m.mrr);
  }
  text += fmt::format("  ({} users, {} unreachable targets, {} not candidates, {} tied)\n", targets.size(), unreachable,
                      not_candidates, tied);
  return text + "protocol: " + protocol + '\n';
}

}  // namespace tally::recsys
