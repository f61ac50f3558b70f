// A run that begins with the weights of another, alone and as part of a study.
#include <catch2/catch.hpp>

#include "tally/core/io/file.h"
#include "tests/tools/small_runs.h"

namespace start_from_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace fs = std::filesystem;

namespace {

std::string from(const fs::path& run) { return "--start_from=" + run.string(); }

Json test_of(const fs::path& run) { return read_json(run / "test_metrics.json").at("test").at(std::size_t{2}); }

}  // namespace

TEST_CASE("a run starts from the weights of another", "[train]") {
  const Workshop workshop;
  // Steps too small to change a weight: what is tested is what was begun with.
  const CommandResult result = workshop.train({from(finished().run()), "--epochs=1", "--learning_rate=1e-30"});
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  CHECK_THAT(result.out, Contains("starts from the weights of " + finished().run().string()));
  const Json before = test_of(finished().run()), after = test_of(workshop.run());
  for (const char* metric : {"HR@10", "NDCG@10", "MRR@10"}) CHECK(after.at(metric) == before.at(metric));

  SECTION("killed before its first checkpoint it starts from them again") {
    fs::remove_all(workshop.run() / "checkpoints/last");
    fs::remove_all(workshop.run() / "checkpoints/best");
    fs::remove(workshop.run() / "test_metrics.json");
    const CommandResult again = tally_command({"train", "--resume", workshop.run().string()});
    INFO(again.error);
    REQUIRE(again.exit_code == 0);
    CHECK(test_of(workshop.run()) == after);
  }
  SECTION("a checkpoint needs the other run no more") {
    fs::path moved = workshop.files() / "moved";
    fs::rename(workshop.run(), moved);
    fs::remove(moved / "test_metrics.json");
    std::string config = read_file(moved / "config.resolved.json");
    const std::string run = finished().run().string();
    config.replace(config.find(run), run.size(), "/nowhere");
    write_file_atomically(moved / "config.resolved.json", config);
    CHECK(tally_command({"train", "--resume", moved.string()}).exit_code == 0);
    CHECK(test_of(moved) == after);
  }
}

TEST_CASE("weights that a run cannot start from are refused before anything is written", "[train]") {
  const Workshop workshop;
  check_refused(workshop.train({from(workshop.files() / "none")}), 1, {"none"});
  check_refused(workshop.train({from(finished().run()), "--hidden_size=8"}), 1,
                {"needs a run with a weight of the name and shape of one of sasrec"});
  std::string other = "userId,movieId,rating,timestamp\n";
  for (const char* item : {"a", "b", "c", "d"}) other += std::string("1,") + item + ",4.0,1\n";
  workshop.files().write("ratings.csv", other);
  check_refused(workshop.train({from(finished().run()), "--titles="}), 1, {"none of its 40 items is among these 4"});
  CHECK(!fs::exists(workshop.output()));
}

TEST_CASE("a run of a study starts from an earlier one, wherever the study lies", "[study][slow]") {
  const Workshop workshop;
  const auto file = workshop.files().write("study.json", R"({"name": "s", "base": "config.json", "seeds": [1, 2],
    "runs": [{"name": "first", "overrides": {"epochs": 2}},
             {"name": "second", "start_from": "first", "overrides": {"epochs": 1, "learning_rate": 1e-30}}]})");
  const fs::path moved = workshop.files() / "moved";
  const auto study = [&](const fs::path& output) {
    return tally_command({"study", file.string(), "--output", output.string()});
  };
  const CommandResult result = study(workshop.output());
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  for (const std::string seed : {"1", "2"}) {
    CHECK(test_of(workshop.output() / ("second-seed" + seed)) == test_of(workshop.output() / ("first-seed" + seed)));
  }
  fs::rename(workshop.output(), moved);
  const CommandResult again = study(moved);
  INFO(again.error);
  CHECK(again.exit_code == 0);
  CHECK_THAT(again.out, Contains("[4 of 4] second-seed2: finished before"));
}

}  // namespace start_from_test
