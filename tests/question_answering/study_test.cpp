#include <catch2/catch.hpp>
#include <cmath>

#include "examples/question_answering/study_report.h"
#include "tests/support/temporary_directory.h"

namespace study_test {

using namespace question_answering;
using Catch::Matchers::Contains;
using tally::test::message_of;
using tally::test::TemporaryDirectory;

namespace {

StudyConfig config_of(const TemporaryDirectory& directory, const std::string& text) {
  return read_study_config(directory.write("config.json", text));
}

std::string refused(const std::string& text) {
  const TemporaryDirectory directory;
  return message_of<tally::ConfigError>([&] { config_of(directory, text); });
}

RunResult result(const std::string& reader, double rate, std::int64_t seed, double validation,
                 std::vector<double> test) {
  RunResult made;
  made.run = {reader, rate, seed};
  made.validation = validation;
  made.test = std::move(test);
  made.validation_by_epoch = {validation / 2, validation};
  return made;
}

StudyConfig two_readers() {
  StudyConfig config;
  config.name = "two";
  config.readers.resize(2);
  config.readers[0].name = "b";
  config.readers[1].name = "a";
  config.seeds = {1, 2};
  config.gaps = {{"a", "b"}};
  return config;
}

const std::vector<RunResult>& some_results() {
  static const std::vector<RunResult> all{result("a", 0.01, 1, 0.7, {0.5, 0.9}), result("a", 0.1, 1, 0.6, {1, 1}),
                                          result("a", 0.01, 2, 0.5, {0.6, 0.9}), result("b", 0.01, 1, 0.4, {0.4, 0.6}),
                                          result("b", 0.1, 1, 0.4, {0, 0}),      result("b", 0.01, 2, 0.4, {0.4, 0.5})};
  return all;
}

}  // namespace

TEST_CASE("a study's config is read strictly", "[study]") {
  const TemporaryDirectory directory;
  const StudyConfig config = config_of(directory, R"({
    "name": "one", "data": {"set": "babi", "directory": "here", "tasks": [1, 2]},
    "model": {"hidden_size": 8}, "train": {"decay": "cosine"},
    "readers": [{"reader": "none"}, {"name": "forgetting", "reader": "gated_linear", "reader_decay": "learned"}],
    "learning_rates": [0.5], "gaps": [{"better": "forgetting", "worse": "none"}]})");
  CHECK(config.readers[0].name == "none");
  CHECK(config.readers[1].name == "forgetting");
  CHECK(config.readers[1].reader.name() == "gated_linear");
  CHECK(config.learning_rates == std::vector<double>{0.5});
  CHECK(config.train.decay == LearningRateDecay::cosine);
  CHECK(config.data.set.options.list().find("directory")->value().as_string() == (directory / "here").string());

  CHECK_THAT(refused(R"({"reader": []})"), Contains("did you mean \"readers\"?"));
  CHECK_THAT(refused(R"({"readers": []})"), Contains("at least one reader"));
  CHECK_THAT(refused(R"({"readers": [{"reader": "sotfmax"}]})"), Contains("did you mean \"softmax\"?"));
  CHECK_THAT(refused(R"({"readers": [{"reader": "none", "contexts": 3}]})"), Contains("readers[0]"));
  CHECK_THAT(refused(R"({"readers": [{"reader": "none"}, {"reader": "none"}]})"), Contains("\"none\" is there twice"));
  CHECK_THAT(refused(R"({"readers": [{"name": "../x", "reader": "none"}]})"), Contains("letters, digits"));
  CHECK_THAT(refused(R"({"readers": [{"reader": "none"}], "gaps": [{"better": "non", "worse": "none"}]})"),
             Contains("\"non\" is no reader of this study; did you mean \"none\"?"));
  CHECK_THAT(refused(R"({"readers": [{"reader": "none"}], "learning_rates": [-1]})"), Contains("above 0"));
  CHECK_THAT(refused(R"({"readers": [{"reader": "none"}], "learning_rates": [1, 1]})"), Contains("that differ"));
  CHECK_THAT(refused(R"({"readers": [{"reader": "none"}], "data": {"set": "entity_cloze", "tasks": [1]}})"),
             Contains("data.tasks"));
  CHECK_THAT(refused(R"({"readers": [{"reader": "none"}], "data": {"set": "associative_retrieval", "pairs": 30}})"),
             Contains("at most 26 pairs"));
}

TEST_CASE("the configs that ship are sound", "[study]") {
  std::size_t configs = 0;
  for (const auto& entry : std::filesystem::directory_iterator(TALLY_SOURCE_DIR "/examples/question_answering")) {
    if (entry.path().extension() != ".json") continue;
    INFO(entry.path());
    const StudyConfig config = read_study_config(entry.path());
    CHECK_FALSE(config.name.empty());
    CHECK(config.readers.size() >= 3);
    ++configs;
  }
  CHECK(configs == 5);
}

TEST_CASE("a reader's learning rate is the best on validation of the seeds that try all", "[study]") {
  CHECK(chosen_rate({some_results()[1], some_results()[0]}) == 0.01);
  CHECK(chosen_rate({some_results()[4], some_results()[3]}) == 0.01);  // of two that are as good
  CHECK_THROWS_AS(chosen_rate({}), tally::ValueError);
  // Two seeds: what is best in the mean, not what one seed was lucky with.
  const auto run_of = [](double rate, std::int64_t seed, double validation) {
    RunResult result;
    result.run = {"a", rate, seed};
    result.validation = validation;
    return result;
  };
  const std::vector<RunResult> runs{run_of(0.01, 1, 0.8), run_of(0.001, 1, 0.6), run_of(0.01, 2, 0.1),
                                    run_of(0.001, 2, 0.6)};
  CHECK(chosen_rate(runs) == 0.001);
  StudyConfig twice = two_readers();
  twice.rate_seeds = 2;
  CHECK(chosen_results(twice, runs)[0].learning_rate == 0.001);
  CHECK(chosen_results(two_readers(), runs)[0].learning_rate == 0.01);
  twice.rate_seeds = 3;
  CHECK_THROWS_WITH(twice.check("study"), Contains("[study.rate_seeds] needs at most 2"));
  const auto chosen = chosen_results(two_readers(), some_results());
  REQUIRE(chosen.size() == 2);
  CHECK(chosen[0].reader == "b");
  CHECK(chosen[1].reader == "a");
  CHECK(chosen[1].learning_rate == 0.01);
  REQUIRE(chosen[1].seeds.size() == 2);
  CHECK(chosen[1].seeds[1].run.seed == 2);
  // A study of which little is there.
  CHECK(chosen_results(two_readers(), {}).empty());
  CHECK(chosen_results(two_readers(), {some_results()[2]}).empty());
}

TEST_CASE("tables of a study have means, spreads and gaps", "[study]") {
  const Spread spread = spread_of({1, 2, 6});
  CHECK(spread.mean == 3);
  CHECK(spread.deviation == Approx(std::sqrt(7)));
  CHECK(spread.least == 1);
  CHECK(spread_of({4}).deviation == 0);

  const StudyConfig config = two_readers();
  QuestionSet set;
  set.tasks = {"t1_easy", "t2_hard"};
  const auto chosen = chosen_results(config, some_results());
  const tally::Table accuracy = accuracy_table(set, chosen);
  REQUIRE(accuracy.rows().size() == 5);
  CHECK(accuracy.rows()[0] == std::vector<std::string>{"t1_easy", "40.0 ± 0.0", "55.0 ± 7.1"});
  CHECK(accuracy.rows()[2] == std::vector<std::string>{"mean", "47.50 ± 3.54", "72.50 ± 3.54"});
  CHECK(accuracy.rows()[4] == std::vector<std::string>{"learning rate", "0.01", "0.01"});

  // Seeds: 70 - 50 and 75 - 45. Tasks: 55 - 40 and 90 - 55.
  const tally::Table gaps = gap_table(config, chosen);
  REQUIRE(gaps.rows().size() == 1);
  const auto& row = gaps.rows()[0];
  CHECK(row[0] == "a - b");
  CHECK(row[1] == "25.00");
  CHECK(row[2] == "7.07");
  CHECK(row[3] == "20.00");
  CHECK(row[4] == "2");
  // 25 +- t(1, 97.5 %) 10
  CHECK(row[5] == "-102.06 to 152.06");
  CHECK(row[7] == "2");
  CHECK(row[8] == "0");
  CHECK(run_table(some_results()).rows().size() == 6);

  const tally::Plot plot = accuracy_plot(config, set, chosen);
  CHECK(plot.categories == std::vector<std::string>{"t1", "t2", "mean"});
  CHECK(plot.series[1].points[2].y == Approx(72.5));
  CHECK(learning_plot(config, chosen).series[1].points.size() == 2);
}

TEST_CASE("a study's runs are trained once, and are not taken for others", "[study]") {
  const TemporaryDirectory directory;
  StudyConfig config = config_of(directory, R"({
    "name": "small", "data": {"set": "associative_retrieval", "training": 200, "validation": 20, "test": 30, "pairs": 2},
    "model": {"embedding_size": 8, "hidden_size": 8}, "train": {"epochs": 2},
    "readers": [{"reader": "softmax"}, {"reader": "none"}], "gaps": [{"better": "softmax", "worse": "none"}]})");
  config.output = (directory / "out").string();
  const StudyData data = read_study_data(config.data);
  const StudyRun run{"softmax", 0.01, 1};
  CHECK(run.directory() == "softmax-rate0.01-seed1");
  CHECK_FALSE(find_result(config, data, run));
  int steps = 0;
  CHECK_FALSE(run_training(config, data, run, {[&] { return ++steps == 4; }, {}}));
  CHECK_FALSE(find_result(config, data, run));
  const auto trained = run_training(config, data, run);
  REQUIRE(trained);
  CHECK(trained->test.size() == 1);
  CHECK(trained->validation_by_epoch.size() == 2);
  CHECK(trained->last_loss < trained->first_loss);
  CHECK(trained->words_per_second > 0);
  const auto read = run_training(config, data, run,
                                 {[] {
                                    FAIL("a finished run was trained");
                                    return true;
                                  },
                                  {}});
  REQUIRE(read);
  CHECK(read->test == trained->test);
  CHECK(read->validation == trained->validation);
  CHECK(read->parameters == trained->parameters);
  // The uninterrupted one.
  StudyConfig elsewhere = config;
  elsewhere.output = (directory / "other").string();
  const auto whole = run_training(elsewhere, data, run);
  REQUIRE(whole);
  CHECK(whole->test == trained->test);
  CHECK(whole->last_loss == trained->last_loss);

  // A training that ends in what is not finite has learned what it had before; one that had nothing is an error.
  const auto ends_at = [](int last) {
    return [last, step = 0]() mutable {
      tally::check<tally::ValueError>(++step < last, "loss", "is nan");
      return false;
    };
  };
  const StudyRun wild{"softmax", 0.1, 1};
  CHECK_THROWS_AS(run_training(config, data, wild, {ends_at(2), {}}), tally::ValueError);
  const auto ended = run_training(config, data, wild, {ends_at(8), {}});
  REQUIRE(ended);
  CHECK_THAT(ended->diverged, Contains("is nan"));
  CHECK(ended->best_epoch == 1);
  CHECK(ended->test.size() == 1);
  CHECK(find_result(config, data, wild)->diverged == ended->diverged);
  CHECK(trained->diverged.empty());
  CHECK_THAT(write_report(config, data.set, {*ended}), Contains("`softmax-rate0.1-seed1` ended early: "));

  const std::string text = write_report(config, data.set, {*trained});
  CHECK_THAT(text, Contains("softmax") && Contains("words a second"));
  for (const char* name : {"results.md", "accuracy.csv", "gaps.csv", "runs.csv", "accuracy.svg", "learning.svg"}) {
    CHECK(std::filesystem::file_size(std::filesystem::path(config.output) / name) > 0);
  }

  StudyConfig changed = config;
  changed.train.epochs = 3;
  CHECK_THAT(message_of<tally::ConfigError>([&] { run_training(changed, data, run); }),
             Contains("other settings or data"));
  DataOptions other = config.data;
  tally::set_option([&other] { return other.set.options.list(); }, "data", "data_seed", 7);
  CHECK(read_study_data(other).fingerprint != data.fingerprint);
  CHECK(read_study_data(config.data).fingerprint == data.fingerprint);
}

}  // namespace study_test
