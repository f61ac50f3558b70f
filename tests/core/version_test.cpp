#include "tally/core/version.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <regex>
#include <sstream>

namespace version_test {

using namespace tally;

TEST_CASE("the version is the project's", "[version]") {
  std::ostringstream text;
  text << std::ifstream(TALLY_SOURCE_DIR "/CMakeLists.txt").rdbuf();
  const std::string project = text.str();
  std::smatch match;
  REQUIRE(std::regex_search(project, match, std::regex(R"(project\(tally VERSION (\S+))")));
  CHECK(version() == match[1].str());
  CHECK(std::regex_match(revision(), std::regex("unknown|[0-9a-f]{7,40}(-dirty)?")));
  CHECK(std::regex_match(version_description(), std::regex(R"(\S+ \(\S+, (GCC|Clang) [0-9.]+\))")));
}

}  // namespace version_test
