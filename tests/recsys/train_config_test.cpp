#include <catch2/catch.hpp>

#include "tally/recsys/run/run_training.h"

namespace train_config_test {

using namespace tally;
using namespace tally::recsys;
using Catch::Matchers::Contains;

namespace {

TrainConfig parse(const std::vector<std::string>& overrides) {
  Json json = Json::object({{"data", Json::object({{"path", "ratings.csv"}})}});
  for (const std::string& each : overrides) apply_override(json, each);
  return parse_config(json).train;
}

}  // namespace

TEST_CASE("a config's losses and samples", "[config]") {
  const auto described = [](const std::vector<std::string>& overrides) {
    const std::vector<std::int32_t> history{3, 1, 4};
    return make_loss(parse(overrides), {{history}, 5000})->description();
  };
  CHECK(described({}) == "cross-entropy over all items");
  CHECK(described({"loss_type=BCE", "negative_exclude=history"}) ==
        "binary cross-entropy, 1 uniform negative for each position, outside the user's training items");
  CHECK(described({"loss_type=BCE", "bce_average=negatives"}) ==
        "binary cross-entropy, mean of negatives, 1 uniform negative for each position");
  CHECK(described({"loss_type=gBCE", "negatives=256", "bce_average=samples", "gbce_t=0.5"}) ==
        "binary cross-entropy calibrated by 0.5, mean of samples, 256 uniform negatives for each position");
  CHECK(described({"loss_type=SSM", "negatives=3000", "negative_scope=sequence", "negative_exclude=history",
                   "negative_replacement=false"}) ==
        "sampled softmax, 3000 uniform negatives for each sequence, without replacement, outside the user's training "
        "items");
  CHECK(described({"loss_type=SSM", "negatives=50", "negative_scope=batch", "negative_distribution=popularity",
                   "negative_alpha=0.75", "logq=true"}) ==
        "sampled softmax with logQ, 50 popularity^0.75 negatives for each batch");
  const auto batches = batch_options(parse({"train_samples=prefix", "prefixes_per_user=4", "train_batch_size=7"}), 50);
  CHECK(batches.samples == TrainingSamples::prefix);
  CHECK(batches.prefixes_per_user == 4);
  CHECK(batch_options(parse({"train_samples=window", "window_stride=20"}), 50).stride == 20);
  CHECK(batches.batch_size == 7);
  CHECK(batches.window == 50);
  CHECK(batches.events_before == 0);
  CHECK(batch_options(parse({}), 50, 4).events_before == 4);
  CHECK(batch_options(parse({"train_samples=pieces"}), 50).samples == TrainingSamples::pieces);
}

TEST_CASE("what does not fit a loss is one clear sentence", "[config]") {
  const auto refused = [](const std::vector<std::string>& overrides, const std::string& message) {
    CHECK_THROWS_WITH(parse(overrides), Contains(message));
    CHECK_THROWS_AS(parse(overrides), ConfigError);
  };
  refused({"loss_type=BPE"}, "did you mean \"BCE\"?");
  refused({"negatives=0", "loss_type=BCE"}, "[train.negatives] needs at least 1; got 0");
  refused({"logq=true"}, "[train.logq] has no effect with train.loss_type CE; it needs train.loss_type SSM");
  refused({"bce_average=samples"},
          "[train.bce_average] has no effect with train.loss_type CE; it needs train.loss_type BCE or gBCE");
  refused({"loss_type=gBCE", "gbce_t=1.5"}, "[train.gbce_t] needs a value in [0, 1]; got 1.5");
  refused({"loss_type=gBCE", "negative_distribution=popularity"},
          "[train.negative_distribution] needs uniform negatives for gBCE; got popularity");
  refused({"loss_type=SSM", "negative_scope=batch", "negative_exclude=history"},
          "[train.negative_exclude] needs negative_scope position or sequence to exclude the history; got batch");
  refused({"loss_type=SSM", "negative_scope=batch", "negative_exclude=target"},
          "[train.negative_exclude] needs negative_scope position to exclude the target; got batch");
  refused({"loss_type=BCE", "negative_replacement=false"}, "[train.negative_replacement] can be false");
  refused({"train_samples=prefix", "prefixes_per_user=-1"}, "[train.prefixes_per_user] needs at least 0; got -1");
  refused({"train_samples=pieces", "window_stride=-1"}, "[train.window_stride] needs at least 0; got -1");
  refused({"negativs=3"}, "did you mean \"negatives\"?");
}

TEST_CASE("parameters with rates of their own", "[config]") {
  const TrainConfig config = parse({R"(parameter_groups=[{"paths": "items.*", "learning_rate_factor": 10},)"
                                    R"( {"paths": "norm.*", "weight_decay": 0, "frozen": true}])",
                                    "accumulate_batches=4"});
  REQUIRE(config.parameter_groups.size() == 2);
  CHECK(config.parameter_groups[0].pattern == "items.*");
  CHECK(config.parameter_groups[0].learning_rate_factor == 10);
  CHECK_FALSE(config.parameter_groups[0].weight_decay);
  CHECK(config.parameter_groups[1].weight_decay == 0.0);
  CHECK(config.parameter_groups[1].frozen);
  CHECK(config.accumulate_batches == 4);
  const auto refused = [](const std::string& groups, const std::string& message) {
    CHECK_THROWS_WITH(parse({"parameter_groups=" + groups}), Contains(message));
  };
  refused(R"([{"path": "items.*"}])", "[train.parameter_groups[0].path] is not a known key; did you mean \"paths\"");
  refused(R"([{"paths": "a"}, {"learning_rate_factor": -1}])",
          "[train.parameter_groups[1].learning_rate_factor] needs at least 0; got -1");
  refused("[1]", "[train.parameter_groups[0]] needs an object; got 1");
  refused("{}", "[train.parameter_groups] needs a list of objects; got {}");
}

}  // namespace train_config_test
