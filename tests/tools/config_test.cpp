// `tally config show` and `tally config protocols`.
#include <catch2/catch.hpp>

#include "tests/tools/small_runs.h"

namespace config_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

TEST_CASE("config show prints each value and where it came from", "[config]") {
  const Workshop workshop;
  const std::string config = workshop.config().string();
  const CommandResult shown = tally_command({"config", "show", config, "--protocol=klenitskiy", "--learning_rate=0.5"});
  INFO(shown.error);
  REQUIRE(shown.exit_code == 0);
  CHECK_THAT(shown.out, Contains("--train.learning_rate") && Contains("protocol klenitskiy") && Contains(config));
  CHECK_THAT(shown.out, Contains("protocol: klenitskiy"));

  const CommandResult json = tally_command({"config", "show", config, "--json"});
  const Json values = parse_json(json.out);
  CHECK(values.at("train.beta1").at("origin") == Json("default"));
  CHECK(values.at("data.path").at("value") == Json(workshop.data().string()));

  check_refused(tally_command({"config", "show", config, "--protocol=lissa"}), 2,
                {"protocol", "did you mean \"lisa\""});
  check_refused(tally_command({"config", "show", (workshop.files() / "nothing.json").string()}), 2, {"nothing.json"});
}

TEST_CASE("config protocols lists what each protocol sets", "[config]") {
  const CommandResult listed = tally_command({"config", "protocols"});
  REQUIRE(listed.exit_code == 0);
  for (const char* part :
       {"klenitskiy", "lisa", "sasrec2018", "recbole", "evaluation.mode", "\"uni100\"", "train.stopping_step"}) {
    CHECK_THAT(listed.out, Contains(part));
  }
}

TEST_CASE("a run under a protocol with sampled negatives says so and stores them", "[config]") {
  const Workshop workshop;
  const CommandResult run =
      workshop.train({"--protocol=sasrec2018", "--epochs=2", "--eval_step=1", "--mode=uni5", "--valid_users=20"});
  INFO(run.error);
  REQUIRE(run.exit_code == 0);
  CHECK_THAT(run.out, Contains("NDCG@10(uni5)") && Contains("sasrec2018 with train.epochs=2"));
  const std::filesystem::path directory = workshop.run();
  CHECK(std::filesystem::exists(directory / "negatives.npy"));
  const Json test = read_json(directory / "test_metrics.json").at("test");
  for (const Json& evaluation : test.elements()) {
    CHECK(evaluation.at("ranking") == Json("uni5"));
    CHECK_THAT(evaluation.at("protocol").as_string(),
               Contains("5 uniform negatives with replacement, outside the user's training items, seed 0"));
  }
  const CommandResult again = tally_command({"evaluate", directory.string(), "--part=validation"});
  CHECK_THAT(again.out, Contains("(20 users"));
}

TEST_CASE("what a config may name is listed, and one of them with its keys", "[config]") {
  const auto said = [](const std::vector<std::string>& words) {
    const CommandResult listed = tally_command(words);
    INFO(words.front() << listed.error);
    CHECK(listed.exit_code == 0);
    return listed.out;
  };
  CHECK_THAT(said({"models"}), Contains("gru4rec") && Contains("sasrec") && Contains("lisa"));
  CHECK_THAT(said({"models", "gru4rec"}), Contains("hidden_size") && Contains("integer, at least 1") &&
                                              !Contains("n_heads") && !Contains("codebooks"));
  CHECK_THAT(said({"losses", "gBCE"}), Contains("gbce_t") && Contains("0.75") && Contains("a value in [0, 1]"));
  CHECK_THAT(said({"losses", "CE"}), Contains("no keys of its own"));
  CHECK_THAT(said({"learners", "adam"}), Contains("beta2") && Contains("0.999"));
  CHECK_THAT(said({"attentions"}), Contains("linear_elu") && Contains("linformer"));
  CHECK_THAT(said({"schedules"}), Contains("cosine"));
  CHECK_THAT(said({"protocols", "lisa"}), Contains("evaluation.topk") && Contains("[5,10]"));
  CHECK_THAT(said({"readers"}), Contains("movielens"));
  check_refused(tally_command({"models", "gru4red"}), 2, {"[model.name]", "did you mean \"gru4rec\""});
}

TEST_CASE("a key without effect is refused before anything is read", "[config]") {
  const Workshop workshop;
  check_refused(workshop.train({"--negatives=100", "--gbce_t=0.9"}), 2, {"has no effect with train.loss_type CE"});
  check_refused(workshop.train({"--train_samples=shifted", "--window_stride=3"}), 2, {"[train.window_stride]"});
  CHECK_FALSE(std::filesystem::exists(workshop.output()));
}

}  // namespace config_test
