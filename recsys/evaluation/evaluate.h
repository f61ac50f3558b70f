#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tally/core/stop.h"
#include "tally/core/words.h"
#include "tally/recsys/data/split.h"
#include "tally/recsys/evaluation/candidate_sampling.h"
#include "tally/recsys/evaluation/metrics.h"
#include "tally/recsys/evaluation/ranker.h"

namespace tally::recsys {

/// Which items of the user's history are taken out of the ranking.
enum class SeenFilter { none, full };
constexpr auto words(SeenFilter) {
  using W = Word<SeenFilter>;
  return std::array{W{"none", SeenFilter::none}, W{"full", SeenFilter::full}};
}
/// Which items are ranked: all of the data set, or those that occur in the training part.
enum class Candidates { all, train };
constexpr auto words(Candidates) {
  using W = Word<Candidates>;
  return std::array{W{"all", Candidates::all}, W{"train", Candidates::train}};
}

struct EvaluationOptions {
  SeenFilter seen = SeenFilter::full;
  Candidates candidates = Candidates::all;
  RankTies ties = RankTies::mean;
  std::vector<std::int64_t> cutoffs{10};
  /// Absent: full ranking. Else the target is ranked among drawn negatives, and neither `seen` nor `candidates` counts.
  std::optional<CandidateSampling> sampled = {};
  std::string rules = {};             ///< what the protocol line begins with: a protocol's name, rules of the data
  StopRequested stop_requested = {};  ///< asked before each block of users
};

/// Ranks and metrics of one ranker under one protocol.
struct Evaluation {
  std::string ranker;
  std::string protocol;          ///< "leave-one-out, full ranking over 3416 items, seen=full, ties=mean"
  std::string ranking = "full";  ///< "full", or the label of sampled candidates ("uni100")
  Part part = Part::test;
  std::vector<Target> targets;
  std::vector<TargetRank> ranks;    ///< of each target: paired tests and breakdowns need them
  std::vector<Metrics> metrics;     ///< at each cut-off
  std::int64_t unreachable = 0;     ///< targets whose item is never trained on
  std::int64_t not_candidates = 0;  ///< targets that the seen filter or the candidate set takes out: always a miss
  std::int64_t tied = 0;            ///< targets that share their score with another candidate

  /// Metrics at one of the cut-offs. Throws ValueError for another.
  const Metrics& at(std::int64_t k) const;
  /// "HR@10", or "HR@10(uni100)": how people are shown a metric.
  std::string metric_name(const char* kind, std::int64_t k) const;
  /// Two lines for people: the metrics with the counts, and "protocol: ...".
  std::string to_text() const;
};

/// Ranks each target of a part of the split against the whole candidate set, or among drawn negatives. Histories are
/// scored in blocks of users, so that the score matrix never exists whole; blocks depend on the number of items only,
/// and results not on threads. Throws ValueError naming user and item for a score that is not finite, or a user for
/// whom the negatives cannot be drawn (before anything is scored), ShapeError when the ranker is of another number of
/// items, and Stopped.
Evaluation evaluate(const Ranker& ranker, const Split& split, Part part, const EvaluationOptions& options = {});
/// The same for chosen targets of the split's data (a sample of validation users, say).
Evaluation evaluate(const Ranker& ranker, const Split& split, Part part, std::span<const Target> targets,
                    const EvaluationOptions& options = {});

/// Users per block: about 16 MiB of scores, at least 1 and at most 256.
std::int64_t users_per_block(std::int64_t num_items);

}  // namespace tally::recsys
