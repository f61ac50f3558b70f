#include "tally/recsys/protocol.h"

#include <algorithm>

#include "tally/core/json_fields.h"

namespace tally::recsys {
namespace {

/// Klenitskiy & Vasilev, "Turning dross into gold loss" (RecSys 2023): their released configs and code.
void klenitskiy(RunConfig& config) {
  config.data.split = "leave_one_out";
  config.data.tie_rule = "file_order";
  config.model.position_alignment = "start";  // they pad on the right
  config.train.epochs = 100;
  config.train.eval_step = 1;
  config.train.stopping_step = 10;
  config.train.valid_metric = "NDCG@10";
  config.evaluation.mode = "full";
  config.evaluation.candidates = "all";
  config.evaluation.filter_seen = "full";
  config.evaluation.rank_ties = "mean";
  config.evaluation.valid_users = 10000;
}

/// Wu et al., "Linear-time self attention with codeword histogram" (WWW 2021): their released code. It has no
/// validation: what is tested is the model after the last epoch. Its order among tied scores is arbitrary: mean.
void lisa(RunConfig& config) {
  config.data.split = "leave_last_out";
  config.data.min_length = 4;
  config.data.short_users = "drop";
  config.data.tie_rule = "file_order";
  config.model.position_alignment = "start";
  config.train.epochs = 200;
  config.train.eval_step = 1;
  config.train.stopping_step = 0;
  config.train.train_samples = "pieces";
  config.evaluation.topk = {5, 10};
  config.evaluation.mode = "uni100";
  config.evaluation.negatives_exclude = "all";
  config.evaluation.negatives_replacement = true;
  config.evaluation.rank_ties = "mean";
}

/// Kang & McAuley, "Self-attentive sequential recommendation" (ICDM 2018): their released evaluator. Negatives come
/// from all items outside the training part, the target among them, which stands first among equals.
void sasrec2018(RunConfig& config) {
  config.data.split = "leave_one_out";
  config.data.tie_rule = "file_order";
  config.model.position_alignment = "end";  // they pad on the left
  config.train.epochs = 201;
  config.train.eval_step = 20;
  config.train.stopping_step = 0;
  config.train.valid_metric = "NDCG@10";
  config.evaluation.mode = "uni100";
  config.evaluation.negatives_exclude = "training";
  config.evaluation.negatives_replacement = true;
  config.evaluation.rank_ties = "optimistic";
  config.evaluation.valid_users = 10000;
  config.evaluation.test_users = 10000;
}

}  // namespace

const std::vector<Protocol>& protocols() {
  static const std::vector<Protocol> all = {
      {"klenitskiy", "leave-one-out, full ranking, whole history filtered, best validation NDCG@10, patience 10",
       "Klenitskiy & Vasilev, RecSys 2023", klenitskiy},
      {"lisa", "last event held out, no validation, 200 epochs, 100 uniform negatives outside the user's items",
       "Wu et al., WWW 2021 (arXiv 2105.14068), released code", lisa},
      {"sasrec2018", "leave-one-out, 100 uniform negatives outside the training items, validated every 20 epochs",
       "Kang & McAuley, ICDM 2018 (arXiv 1808.09781), released code", sasrec2018},
  };
  return all;
}

const Protocol& find_protocol(const std::string& name) {
  std::vector<std::string> known;
  for (const Protocol& protocol : protocols()) {
    if (protocol.name == name) return protocol;
    known.push_back(protocol.name);
  }
  const std::string nearest = nearest_name(name, known);
  std::string list;
  for (const std::string& each : known) list += (list.empty() ? "" : ", ") + each;
  fail<ConfigError>("protocol", "is one of ", list, "; got \"", name, '"',
                    nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?");
}

const std::vector<std::string>& protocol_keys() {
  static const std::vector<std::string> keys = {"data.split",
                                                "data.min_length",
                                                "data.short_users",
                                                "data.tie_rule",
                                                "model.position_alignment",
                                                "train.epochs",
                                                "train.eval_step",
                                                "train.stopping_step",
                                                "train.valid_metric",
                                                "train.train_samples",
                                                "evaluation.mode",
                                                "evaluation.candidates",
                                                "evaluation.filter_seen",
                                                "evaluation.rank_ties",
                                                "evaluation.negatives_exclude",
                                                "evaluation.negatives_replacement",
                                                "evaluation.sampling_seed",
                                                "evaluation.valid_users",
                                                "evaluation.test_users"};
  return keys;
}

std::string protocol_label(const RunConfig& config) {
  if (config.protocol.empty()) return "no named protocol";
  RunConfig preset;
  find_protocol(config.protocol).apply(preset);
  const auto expected = flattened(to_json(preset));
  const auto actual = flattened(to_json(config));
  std::string label = config.protocol;
  bool first = true;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const auto& keys = protocol_keys();
    if (std::find(keys.begin(), keys.end(), actual[i].first) == keys.end()) continue;
    if (actual[i].second == expected[i].second) continue;
    label += (first ? " with " : " and ") + actual[i].first + '=' + actual[i].second.dump();
    first = false;
  }
  return label;
}

}  // namespace tally::recsys
