#include "tally/recsys/config/protocol.h"

namespace tally::recsys {
namespace {

/// Klenitskiy & Vasilev, "Turning dross into gold loss" (RecSys 2023): their released configs and code.
Json klenitskiy() {
  return Json::object({{"data.split", "leave_one_out"},
                       {"data.tie_rule", "file_order"},
                       {"model.position_alignment", "start"},  // they pad on the right
                       {"train.epochs", 100},
                       {"train.eval_step", 1},
                       {"train.stopping_step", 10},
                       {"train.valid_metric", "NDCG@10"},
                       {"evaluation.mode", "full"},
                       {"evaluation.candidates", "all"},
                       {"evaluation.filter_seen", "full"},
                       {"evaluation.rank_ties", "mean"},
                       {"evaluation.valid_users", 10000}});
}

/// Wu et al., "Linear-time self attention with codeword histogram" (WWW 2021): their released code. It has no
/// validation: what is tested is the model after the last epoch. Its order among tied scores is arbitrary: mean.
Json lisa() {
  return Json::object({{"data.split", "leave_last_out"},
                       {"data.min_length", 4},
                       {"data.short_users", "drop"},
                       {"data.tie_rule", "file_order"},
                       {"model.position_alignment", "start"},
                       {"train.epochs", 200},
                       {"train.eval_step", 1},
                       {"train.stopping_step", 0},
                       {"train.train_samples", "pieces"},
                       {"evaluation.topk", std::vector<std::int64_t>{5, 10}},
                       {"evaluation.mode", "uni100"},
                       {"evaluation.negatives_exclude", "all"},
                       {"evaluation.negatives_replacement", true},
                       {"evaluation.sampling_seed", 0},
                       {"evaluation.rank_ties", "mean"}});
}

/// Kang & McAuley, "Self-attentive sequential recommendation" (ICDM 2018): their released evaluator. Negatives come
/// from all items outside the training part, the target among them, which stands first among equals.
Json sasrec2018() {
  return Json::object({{"data.split", "leave_one_out"},
                       {"data.tie_rule", "file_order"},
                       {"model.position_alignment", "end"},  // they pad on the left
                       {"train.epochs", 201},
                       {"train.eval_step", 20},
                       {"train.stopping_step", 0},
                       {"train.valid_metric", "NDCG@10"},
                       {"evaluation.mode", "uni100"},
                       {"evaluation.negatives_exclude", "training"},
                       {"evaluation.negatives_replacement", true},
                       {"evaluation.sampling_seed", 0},
                       {"evaluation.rank_ties", "optimistic"},
                       {"evaluation.valid_users", 10000},
                       {"evaluation.test_users", 10000}});
}

/// RecBole 1.2 on sequences: its released defaults, one sample for each prefix with the loss at its last position, and
/// items that a user saw ranked as all others (`repeatable`). Its order among tied scores is arbitrary: mean.
Json recbole() {
  return Json::object({{"data.split", "leave_one_out"},
                       {"data.tie_rule", "file_order"},
                       {"model.position_alignment", "start"},  // it pads on the right
                       {"train.epochs", 300},
                       {"train.eval_step", 1},
                       {"train.stopping_step", 10},
                       {"train.valid_metric", "MRR@10"},
                       {"train.train_samples", "prefix"},
                       {"evaluation.mode", "full"},
                       {"evaluation.candidates", "all"},
                       {"evaluation.filter_seen", "none"},
                       {"evaluation.rank_ties", "mean"}});
}

}  // namespace

ChoiceTable<Protocol> standard_protocols() {
  static const ChoiceTable<Protocol> all(
      "protocol",
      {{"klenitskiy", "leave-one-out, full ranking, whole history filtered, best validation NDCG@10, patience 10",
        "Klenitskiy & Vasilev, RecSys 2023", klenitskiy()},
       {"lisa", "last event held out, no validation, 200 epochs, 100 uniform negatives outside the user's items",
        "Wu et al., WWW 2021 (arXiv 2105.14068), released code", lisa()},
       {"sasrec2018", "leave-one-out, 100 uniform negatives outside the training items, validated every 20 epochs",
        "Kang & McAuley, ICDM 2018 (arXiv 1808.09781), released code", sasrec2018()},
       {"recbole", "leave-one-out, full ranking, nothing filtered, trained at the ends of all prefixes, best MRR@10",
        "RecBole 1.2, released code", recbole()}});
  return all;
}

}  // namespace tally::recsys
