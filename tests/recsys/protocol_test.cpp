#include "tally/recsys/config/protocol.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>

#include "tally/core/io/file.h"
#include "tally/recsys/config/config.h"
#include "tally/recsys/run/run_evaluation.h"
#include "tests/recsys/samples.h"
#include "tests/support/temporary_directory.h"

namespace tally::recsys::protocol_test {
namespace {

using Catch::Matchers::Contains;

RunConfig config_of(const std::string& text) { return parse_config(parse_json(text)); }

const std::string kData = R"("data": {"path": "x.csv"})";

}  // namespace

TEST_CASE("a protocol sets what decides comparisons, and its line says what was set otherwise", "[protocol]") {
  const RunConfig plain = config_of("{" + kData + "}");
  CHECK(protocol_label(plain) == "no named protocol");

  const RunConfig sasrec = config_of(R"({"protocol": "sasrec2018", )" + kData + "}");
  CHECK(sasrec.evaluation.mode == "uni100");
  CHECK(sasrec.evaluation.negatives_exclude == CandidateSampling::Exclude::training);
  CHECK(sasrec.evaluation.rank_ties == RankTies::optimistic);
  CHECK(sasrec.evaluation.test_users == 10000);
  CHECK(sasrec.train.eval_step == 20);
  CHECK(to_json(sasrec).at("model").at("position_alignment") == Json("end"));
  CHECK(protocol_label(sasrec) == "sasrec2018");

  const RunConfig lisa = config_of(R"({"protocol": "lisa", )" + kData + "}");
  CHECK(lisa.data.split == "leave_last_out");
  CHECK(lisa.data.min_length == 4);
  CHECK(lisa.data.short_users == ShortUsers::drop);
  CHECK(lisa.train.stopping_step == 0);
  CHECK(lisa.evaluation.topk == std::vector<std::int64_t>{5, 10});

  const RunConfig recbole = config_of(R"({"protocol": "recbole", )" + kData + "}");
  CHECK(recbole.train.train_samples == TrainingSamples::prefix);
  CHECK(recbole.evaluation.filter_seen == SeenFilter::none);
  CHECK(recbole.train.valid_metric == "MRR@10");

  const RunConfig changed = config_of(R"({"protocol": "klenitskiy", "train": {"epochs": 3, "learning_rate": 0.1},
                                          "evaluation": {"filter_seen": "none"}, )" +
                                      kData + "}");
  CHECK(changed.train.stopping_step == 10);
  CHECK(protocol_label(changed) == "klenitskiy with train.epochs=3 and evaluation.filter_seen=\"none\"");
  CHECK(evaluation_options(changed).rules ==
        protocol_label(changed) + ", events by timestamp, equal ones by file_order");

  CHECK_THROWS_WITH(config_of(R"({"protocol": "klenitsky", )" + kData + "}"), Contains("did you mean \"klenitskiy\""));
  for (const Protocol& protocol : standard().protocols) {
    // What a run records gives the same run again.
    const RunConfig config = config_of(R"({"protocol": ")" + protocol.name + R"(", )" + kData + "}");
    CHECK(to_json(parse_config(to_json(config))) == to_json(config));
    CHECK(protocol_label(config) == protocol.name);
    const std::vector<KnownOption> keys = config_keys();
    for (const auto& [key, value] : protocol.values.members()) {
      INFO(key);
      CHECK(std::any_of(keys.begin(), keys.end(), [&key = key](const KnownOption& each) { return each.key == key; }));
    }
  }
}

TEST_CASE("each value of a config is shown with its origin", "[protocol]") {
  const tally::test::TemporaryDirectory directory;
  write_file_atomically(directory / "config.json", R"({"protocol": "klenitskiy", "data": {"path": "x.csv"},
                                                       "train": {"epochs": 5, "seed": 1}})");
  std::map<std::string, ConfigValue> values;
  for (const ConfigValue& each : explain_config(directory / "config.json", {"seed=7", "hidden_size=32"})) {
    values[each.key] = each;
  }
  CHECK(values["train.epochs"].origin == std::string(directory / "config.json"));
  CHECK(values["train.seed"].origin == "--train.seed");
  CHECK(values["train.seed"].value == Json(7));
  CHECK(values["model.hidden_size"].value == Json(32));
  CHECK(values["train.stopping_step"].origin == "protocol klenitskiy");
  CHECK(values["evaluation.rank_ties"].origin == "protocol klenitskiy");
  CHECK(values["train.beta1"].origin == "default");
  CHECK(values["data.path"].origin == std::string(directory / "config.json"));
  CHECK_THROWS_WITH(explain_config(directory / "config.json", {"hidden_sise=32"}), Contains("hidden_size"));

  write_file_atomically(directory / "config.json", R"({"protocol": "lisa", "data": {"path": "x.csv"}})");
  values.clear();
  for (const ConfigValue& each : explain_config(directory / "config.json", {"model.name=gru4rec"})) {
    values[each.key] = each;
  }
  CHECK(values["evaluation.topk"].origin == "protocol lisa");
  CHECK(values["evaluation.candidates"].origin == "default");  // not of this protocol
  // What has no effect is not shown: gru4rec has no positions, and nothing is validated.
  CHECK(values.count("model.position_alignment") == 0);
  CHECK(values.count("train.stopping_step") == 0);
}

TEST_CASE("modes of evaluation are taken apart strictly", "[protocol]") {
  CHECK_FALSE(parse_mode("full").has_value());
  CHECK(parse_mode("uni100")->count == 100);
  CHECK(parse_mode("pop7")->popularity);
  for (const std::string wrong : {"", "Full", "uni", "uni0", "uni-1", "uni1.5", "pop 3", "uni99999999999"}) {
    INFO(wrong);
    CHECK_THROWS_AS(parse_mode(wrong), ConfigError);
  }
}

TEST_CASE("a sample of users is drawn once, whatever the training seed", "[protocol]") {
  const Interactions data = test::random_interactions(RngKey{4}, 80, 30, 9);
  const Split split = leave_one_out(data);
  RunConfig config = config_of(R"({"evaluation": {"valid_users": 20}, )" + kData + "}");
  const std::vector<Target> sample = evaluated_targets(config, split, Part::validation);
  CHECK(sample.size() == 20);
  config.train.seed = 1;
  CHECK(evaluated_targets(config, split, Part::validation) == sample);
  config.evaluation.sampling_seed = 1;
  CHECK(evaluated_targets(config, split, Part::validation) != sample);
  CHECK(evaluated_targets(config, split, Part::test) == split.targets(Part::test));
}

}  // namespace tally::recsys::protocol_test
