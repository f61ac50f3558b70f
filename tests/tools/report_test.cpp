#include <catch2/catch.hpp>

#include "tally/core/io/file.h"
#include "tests/support/well_formed.h"
#include "tests/tools/small_runs.h"

namespace report_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

TEST_CASE("a finished run has its report, and tally report writes it again", "[report][slow]") {
  const Workshop workshop;
  REQUIRE(workshop.train({"--epochs=2"}).exit_code == 0);
  const std::filesystem::path page = workshop.run() / "report.html";
  const std::string written = read_file(page);
  CHECK(malformed(written) == "");
  CHECK_THAT(written, Contains("Film, number 3") && Contains("markov") && Contains("Recommended next"));
  std::filesystem::remove(page);
  const CommandResult again = tally_command({"report", workshop.run()});
  INFO(again.error);
  REQUIRE(again.exit_code == 0);
  CHECK(again.out == page.string() + '\n');
  CHECK(read_file(page) == written);
  check_refused(tally_command({"report", workshop.output()}), 1, {"is no run directory"});
}

}  // namespace report_test
