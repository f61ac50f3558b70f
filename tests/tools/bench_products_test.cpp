// tally bench products prints a row for each shape, with rates of both.
#include <catch2/catch.hpp>
#include <regex>

#include "tests/support/run_command.h"

namespace bench_products_test {

using namespace tally;

TEST_CASE("bench products times both kernels at each shape", "[command]") {
  const auto result = test::run_command(TALLY_COMMAND, {"bench", "products", "--rounds", "1"});
  CHECK(result.exit_code == 0);
  const std::regex row(R"((\d+ x \d+ x \d+) +([nt]{2})( +\d+\.\d){3}( +\d+\.\d\d){2}  (own|OpenBLAS)\n)");
  const std::string& text = result.out;
  CHECK(std::distance(std::sregex_iterator(text.begin(), text.end(), row), std::sregex_iterator()) == 19);
  CHECK(text.find("512 x 3416 x 64    nt") != std::string::npos);
  CHECK(test::run_command(TALLY_COMMAND, {"bench", "products", "--rounds", "0"}).exit_code == 2);
}

}  // namespace bench_products_test
