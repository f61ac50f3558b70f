#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tally/core/options/options.h"
#include "tally/recsys/evaluation/evaluate.h"

namespace tally::recsys {

/// "uni100" and "pop100", taken apart; nothing for "full". Throws ConfigError for another form.
struct SamplingMode {
  bool popularity = false;
  std::int64_t count = 0;
};
std::optional<SamplingMode> parse_mode(const std::string& mode);

/// The section `evaluation` of a config.
struct EvaluationConfig {
  std::vector<std::int64_t> topk = {10};
  SeenFilter filter_seen = SeenFilter::full;
  RankTies rank_ties = RankTies::mean;
  Candidates candidates = Candidates::all;
  std::string mode = "full";
  CandidateSampling::Exclude negatives_exclude = CandidateSampling::Exclude::all;
  bool negatives_replacement = true;
  std::int64_t sampling_seed = 0;
  std::int64_t valid_users = 0;
  std::int64_t test_users = 0;

  static void keys(auto& o, auto&& key) {
    const auto sampled = [&] { return only_if(o.mode != "full", "mode uniN or popN"); };
    key("topk", o.topk, at_least(1), "cut-offs K of HR@K, NDCG@K and MRR@K");
    key("filter_seen", o.filter_seen, "which items of a user's history are neither ranked nor recommended");
    key("rank_ties", o.rank_ties, "place of a target among items of exactly its score");
    key("candidates", o.candidates, "items that are ranked and recommended; `train`: those that occur in training");
    key("mode", o.mode, modes(),
        "`full`: ranked among all candidates; `uniN`, `popN`: among N drawn negatives, uniform or by popularity");
    key("negatives_exclude", o.negatives_exclude, sampled(), "a user's items that are never drawn");
    key("negatives_replacement", o.negatives_replacement, sampled(), "whether a negative may be drawn twice");
    key("sampling_seed", o.sampling_seed, at_least(0),
        only_if(o.mode != "full" || o.valid_users > 0 || o.test_users > 0,
                "mode uniN or popN, or valid_users or test_users above 0"),
        "of negatives and of chosen users: the same for every model and training seed");
    key("valid_users", o.valid_users, at_least(0), "at most so many users, drawn once, are validated on; 0: all");
    key("test_users", o.test_users, at_least(0), "likewise for the test");
  }
  void check(const std::string& section) const;

  static TextDomain modes();
};

/// "NDCG@10", taken apart.
struct MetricName {
  std::string kind;  ///< NDCG | HR | Recall | MRR
  std::int64_t k = 0;
};
/// Throws ConfigError for another form, and for a cut-off that `evaluation` does not have.
MetricName parse_metric(const std::string& name, const EvaluationConfig& evaluation);

}  // namespace tally::recsys
