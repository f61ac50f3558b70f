// Titles and paths are of somebody else: no byte of them drives a terminal.
#include <catch2/catch.hpp>

#include "tally/core/io/file.h"
#include "tests/tools/small_runs.h"

namespace terminal_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace fs = std::filesystem;

namespace {

/// Does a text hold a control character besides tabs and line breaks, of either set?
bool drives_terminal(const std::string& text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]), next = static_cast<unsigned char>(text[i + 1]);
    if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f || (byte == 0xc2 && next < 0xa0)) return true;
  }
  return false;
}

const std::string kRed = "\x1b[31mred\x07\x7f\xC2\x9B";

}  // namespace

TEST_CASE("titles that would drive a terminal are shown, not obeyed", "[terminal]") {
  const Workshop workshop;
  std::string titles = "movieId,title,genres\n";
  for (int item = 1; item <= kItems; ++item) titles += detail::join(item, ",", kRed, item, ",Drama\n");
  workshop.files().write("movies.csv", titles);
  const CommandResult trained = workshop.train({"--train.epochs=1"});
  CHECK(trained.exit_code == 0);
  const std::string run = workshop.run();
  for (const std::string& text : {trained.out, said({"recommend", run, "--history", "1,2"}),
                                  said({"recommend", run, "--user", "1"}), said({"similar", run, "--item", "1"})}) {
    CHECK_THAT(text, Contains("\\x1b[31mred\\x07\\u007f\\u009b"));
    CHECK_FALSE(drives_terminal(text));
  }
}

TEST_CASE("paths and words that would drive a terminal are shown, not obeyed", "[terminal]") {
  const TemporaryDirectory directory;
  for (const std::vector<std::string>& words : {std::vector<std::string>{"train", directory / kRed},
                                                {"evaluate", directory / kRed},
                                                {"report", directory / kRed},
                                                {kRed},
                                                {"version", kRed},
                                                {"data", "stats", directory / kRed},
                                                {"gradcheck", kRed}}) {
    const CommandResult result = tally_command(words);
    INFO(words.front());
    CHECK(result.exit_code != 0);
    CHECK_FALSE(drives_terminal(result.out));
    CHECK_FALSE(drives_terminal(result.error));
    CHECK_THAT(result.error, Contains("\\x1b[31mred"));
  }
}

TEST_CASE("commands speak through one function", "[terminal]") {
  for (const auto& entry : fs::directory_iterator(TALLY_SOURCE_DIR "/tools")) {
    if (entry.path().extension() != ".cpp" || entry.path().filename() == "print.cpp") continue;
    INFO(entry.path());
    const std::string source = read_file(entry.path());
    CHECK_THAT(source, !Contains("std::cout <<") && !Contains("std::cerr <<") && !Contains("printf("));
  }
}

}  // namespace terminal_test
