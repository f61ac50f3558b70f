#include <catch2/catch.hpp>

#include "tally/core/io/file.h"
#include "tests/support/well_formed.h"
#include "tests/tools/small_runs.h"

namespace experts_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

TEST_CASE("tally experts writes how a run reads its experts", "[experts][slow]") {
  const Workshop workshop;
  // A causal run whose experts are retrieved by what came before its window.
  const CommandResult trained =
      workshop.train({"--epochs=2", "--name=elastic", "--experts=4", "--retrieval=rows", "--memory_sub_keys=5",
                      "--MAX_ITEM_LIST_LENGTH=8", "--train_samples=window", "--n_heads=2", "--n_layers=2"});
  INFO(trained.error);
  REQUIRE(trained.exit_code == 0);
  const std::filesystem::path run = workshop.run();
  const CommandResult result = tally_command({"experts", run.string()});
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  const std::string page = read_file(run / "experts.md");
  CHECK(result.out == page + '\n' + (run / "experts.md").string() + '\n');
  CHECK_THAT(page, Contains("# Experts of " + run.filename().string() + '\n') &&
                       Contains("the last rows of 60 histories of the validation") && Contains("entropy of shares") &&
                       Contains("rows to choose from") && Contains("memory_query_norm"));
  // The shares of a layer are shares.
  const std::vector<std::string> lines = lines_of(read_file(run / "experts.csv"));
  REQUIRE(lines.size() == 1 + 2 * 4);
  CHECK(lines[0] == "layer,expert,share");
  for (std::size_t layer = 0; layer < 2; ++layer) {
    double total = 0;
    for (std::size_t e = 0; e < 4; ++e) {
      const std::string& line = lines[1 + 4 * layer + e];
      total += std::stod(line.substr(line.rfind(',') + 1));
    }
    CHECK(total == Approx(1));
  }
  CHECK(malformed(read_file(run / "experts.svg")) == "");
  // Into another directory; and the run answers for users as it was evaluated.
  const std::filesystem::path other = workshop.files() / "other";
  CHECK(tally_command({"experts", run.string(), "--output", other.string()}).exit_code == 0);
  CHECK(read_file(other / "experts.csv") == read_file(run / "experts.csv"));
  CHECK(tally_command({"evaluate", run.string()}).exit_code == 0);
  CHECK_THAT(said({"recommend", run.string(), "--user", "1"}), Contains("item_id"));
  check_refused(tally_command({"experts", finished().run().string()}), 2, {"needs a run of model elastic"});
}

}  // namespace experts_test
