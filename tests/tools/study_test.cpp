#include <algorithm>
#include <catch2/catch.hpp>

#include "tally/core/io/file.h"
#include "tests/support/process.h"
#include "tests/support/well_formed.h"
#include "tests/tools/small_runs.h"

namespace study_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace fs = std::filesystem;

namespace {

/// A study beside a workshop's config: as it stands, and with half the width.
fs::path write_study_file(const Workshop& workshop, const std::string& more = "") {
  return workshop.files().write("study.json", R"({"name": "widths", "base": "config.json", "seeds": [42],
    "runs": [{"name": "wide"}, {"name": "narrow", "overrides": {"hidden_size": 8}}], "compare_to": "wide",
    "plots": [{"x": "hidden_size", "y": "HR@10"}, {"x": "run", "y": "time"}])" +
                                                  more + "}");
}

std::vector<std::string> arguments(const Workshop& workshop, std::initializer_list<std::string> more = {}) {
  std::vector<std::string> words{"study", write_study_file(workshop), "--output", workshop.output()};
  words.insert(words.end(), more);
  return words;
}

CommandResult study(const Workshop& workshop, std::initializer_list<std::string> more = {}) {
  return tally_command(arguments(workshop, more));
}

}  // namespace

TEST_CASE("a study stopped on its way goes on to the bytes of plain runs, and is not run twice", "[study][slow]") {
  const Workshop workshop;
  const fs::path wide = workshop.output() / "wide-seed42";
  {
    Process process(TALLY_COMMAND, arguments(workshop));
    REQUIRE(process.wait_until([&] { return fs::exists(wide / "checkpoints/last"); }));
    process.signal(SIGTERM);
    const CommandResult stopped = process.wait();
    INFO(stopped.error);
    CHECK(stopped.exit_code == 128 + SIGTERM);
    CHECK_THAT(stopped.out, Contains("the same command goes on"));
  }
  CHECK_THAT(study(workshop, {"--list"}).out,
             Contains("wide-seed42\tinterrupted") && Contains("narrow-seed42\tnot begun"));
  CHECK_THAT(read_file(workshop.output() / "study.md"), Contains("0 of 2 trainings finished"));
  const CommandResult finished_study = study(workshop);
  INFO(finished_study.error);
  REQUIRE(finished_study.exit_code == 0);
  CHECK(trained_files(wide) == trained_files(finished().run()));
  CHECK(logged(wide) == logged(finished().run()));

  const std::string text = read_file(workshop.output() / "study.md");
  CHECK_THAT(text, Contains("2 of 2 trainings finished") && Contains("popularity") && Contains("markov"));
  CHECK_THAT(text, Contains("## Compared with wide") && Contains("leave-one-out"));
  CHECK(malformed(read_file(workshop.output() / "plot-1.svg")) == "");
  CHECK(fs::exists(workshop.output() / "plot-2.svg"));
  CHECK(fs::exists(wide / "report.html"));
  const Json metrics = read_json(wide / "test_metrics.json").at("test").at(std::size_t{2});
  const std::string csv = read_file(workshop.output() / "study.csv");
  const std::string row = "\nwide,NDCG@10,1,";
  REQUIRE_THAT(csv, Contains(row));
  CHECK(std::stod(csv.substr(csv.find(row) + row.size())) == metrics.at("NDCG@10").as_double());

  const auto written = fs::last_write_time(wide / "test_metrics.json");
  const CommandResult again = study(workshop);
  CHECK(again.exit_code == 0);
  CHECK(std::count(again.out.begin(), again.out.end(), '\n') == 3);
  CHECK_THAT(again.out, Contains("[1 of 2] wide-seed42: finished before"));
  CHECK(fs::last_write_time(wide / "test_metrics.json") == written);
  fs::remove(workshop.output() / "study.csv");
  CHECK(study(workshop, {"--table-only"}).exit_code == 0);
  CHECK(read_file(workshop.output() / "study.csv") == csv);

  SECTION("a run from before there was a key has the key's default") {
    const fs::path recorded = wide / "config.resolved.json";
    std::string config = read_file(recorded);
    const std::string key = "\"initializer_range\": 0.02,";
    const std::size_t at = config.find(key);
    REQUIRE(at != std::string::npos);
    write_file_atomically(recorded, std::string(config).erase(at, key.size()));
    CHECK(study(workshop).exit_code == 0);
    // Such builds recorded the keys of all models.
    write_file_atomically(recorded, config.insert(at, "\"score_scale\": 1.0, "));
    CHECK(study(workshop).exit_code == 0);
  }
  SECTION("another config is refused with what differs") {
    std::string config = read_file(workshop.config());
    config.replace(config.find("\"epochs\": 6"), 11, "\"epochs\": 7");
    workshop.files().write("config.json", config);
    check_refused(study(workshop), 2, {"wide-seed42", "another config: train.epochs is 6 there and 7 here"});
    check_refused(study(workshop, {"--table-only"}), 2, {"train.epochs is 6 there and 7 here"});
  }
  SECTION("other data are refused") {
    workshop.files().write("ratings.csv", walks_csv() + "1,2,4.0,9000\n");
    check_refused(study(workshop), 2, {"wide-seed42", "was trained on other data than"});
  }
}

TEST_CASE("a study trains what it is asked for only", "[study][slow]") {
  const Workshop workshop;
  const CommandResult result = study(workshop, {"--only", "narrow-seed42"});
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  CHECK(!fs::exists(workshop.output() / "wide-seed42"));
  CHECK_THAT(read_file(workshop.output() / "study.md"), Contains("| wide       | 0 of 1 |"));
  CHECK_THAT(study(workshop, {"--list", "--only=narrow"}).out,
             Contains("narrow-seed42\tfinished") && !Contains("wide"));
}

TEST_CASE("a wrong study is refused before anything is written", "[study]") {
  const Workshop workshop;
  check_refused(study(workshop, {"--only", "wid"}), 2, {"--only", "wide, narrow", "got \"wid\""});
  check_refused(study(workshop, {"--threads", "0"}), 2, {"--threads"});
  check_refused(study(workshop, {"--table-only"}), 1, {"is no directory of a study"});
  check_refused(tally_command({"study", workshop.files() / "none.json"}), 2, {"none.json"});
  check_refused(tally_command({"study", workshop.files().write("bad.json", "{\"name\": 3}")}), 2, {"[name]"});
  const auto misspelt = workshop.files().write("misspelt.json", R"({"name": "a", "base": "config.json", "run": []})");
  check_refused(tally_command({"study", misspelt}), 2, {"needs runs, a grid, or both"});
  CHECK(!fs::exists(workshop.output()));
  const CommandResult list = tally_command({"study", TALLY_SOURCE_DIR "/examples/study.json", "--list"});
  CHECK(list.exit_code == 0);
  CHECK(std::count(list.out.begin(), list.out.end(), '\n') == 18);
}

TEST_CASE("a study of MovieLens ratings", "[study][slow]") {
  const TemporaryDirectory files;
  const std::string data = TALLY_SOURCE_DIR "/examples/data/ml-latest-small/";
  const auto file =
      files.write("study.json", R"({"name": "tiny", "base": {"data": {"path": ")" + data +
                                    R"(ratings.csv.gz", "USER_ID_FIELD": "userId", "ITEM_ID_FIELD": "movieId"},
    "model": {"hidden_size": 8, "n_layers": 1, "MAX_ITEM_LIST_LENGTH": 10}, "train": {"epochs": 1}},
    "grid": {"MAX_ITEM_LIST_LENGTH": [5, 10]}, "plots": [{"x": "length", "y": "memory", "log_x": true}]})");
  const CommandResult result = tally_command({"study", file, "--output", files / "out"});
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  const std::string text = read_file(files / "out/study.md");
  CHECK_THAT(text, Contains("MAX_ITEM_LIST_LENGTH=5") && Contains("2 of 2 trainings finished"));
  // Popularity of this data set, as the page of results has it.
  CHECK_THAT(text, Contains("| popularity              |      - | 0.0393 |"));
  CHECK(malformed(read_file(files / "out/plot-1.svg")) == "");
}

}  // namespace study_test
