// Commands whose standard streams are closed or full, and options of empty text.
#include <signal.h>

#include <catch2/catch.hpp>

#include "tally/core/io/file.h"
#include "tests/support/process.h"
#include "tests/tools/small_runs.h"

namespace standard_streams_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace fs = std::filesystem;

namespace {

/// Runs `tally` through a shell: "$@" are its arguments, `redirections` stand behind them.
CommandResult shell(const std::string& redirections, const std::vector<std::string>& arguments) {
  std::vector<std::string> words{"-c", "exec \"$@\" " + redirections, "sh", TALLY_COMMAND};
  words.insert(words.end(), arguments.begin(), arguments.end());
  return run_command("/bin/sh", words);
}

}  // namespace

TEST_CASE("no file gets the place of a closed standard stream", "[streams]") {
  const TemporaryDirectory directory;
  const std::string input = directory.write("input", "a\t1\na\t?\nb\t2\nnothing\nb\t3\n");
  const auto stream = [&](const std::string& state, const std::string& redirections) {
    return shell(redirections,
                 {"recommend", finished().run(), "--stream", "--state", directory / state, "--bad-lines", "skip"});
  };
  const std::string asks = directory.write("asks", "a\t?\nb\t?\n");
  REQUIRE(stream("plain", "<'" + input + "'").exit_code == 0);
  const std::string expected = stream("plain", "<'" + asks + "'").out;
  for (const char* closed : {">&-", "2>&-", ">&- 2>&-"}) {
    INFO(closed);
    const std::string state = std::string("state") + closed;
    // Without a place for answers nothing is taken; the state, its log and its lock are what they are.
    const bool answers = std::string_view(closed) == "2>&-";
    CHECK(stream(state, "<'" + input + "' " + closed).exit_code == (answers ? 0 : 1));
    if (!answers) CHECK(stream(state, "<'" + input + "'").exit_code == 0);
    CHECK(stream(state, "<'" + asks + "'").out == expected);
  }
  // What is read is not the program's own lock.
  const CommandResult no_input = stream("no input", "<&-");
  CHECK(no_input.exit_code == 1);
  CHECK_THAT(no_input.error, Contains("standard input"));
}

TEST_CASE("a killed training whose output was closed goes on", "[streams]") {
  const Workshop workshop;
  std::vector<std::string> words{"-c", "exec \"$@\" >&- 2>&-", "sh", TALLY_COMMAND};
  for (const std::string& word : workshop.train_arguments()) words.push_back(word);
  Process process("/bin/sh", words);
  REQUIRE(process.wait_until([&] {
    const fs::path run = workshop.run();
    return !run.empty() && fs::exists(run / "checkpoints/last/manifest.json");
  }));
  process.signal(SIGKILL);
  process.wait();
  CHECK(tally_command({"train", "--resume", workshop.run()}).exit_code == 0);
  check_as_uninterrupted(workshop.run());
}

TEST_CASE("what cannot be printed is an error, help included", "[streams]") {
  for (const char* output : {">/dev/full", ">&-"}) {
    for (const char* words : {"--help", "version", "models"}) {
      INFO(words << output);
      const CommandResult result = shell(output, {words});
      CHECK(result.exit_code == 1);
      CHECK_THAT(result.error, Contains("[standard output] could not be written"));
    }
  }
}

TEST_CASE("a link is followed by what a command writes", "[streams]") {
  const TemporaryDirectory directory;
  fs::create_symlink("table.tsv", directory / "link.tsv");
  const auto recommend = [&](const fs::path& out) {
    return shell("", {"recommend", finished().run(), "--user", "1", "--out", out});
  };
  CHECK(recommend(directory / "link.tsv").exit_code == 0);
  CHECK(fs::is_symlink(directory / "link.tsv"));
  CHECK(read_file(directory / "table.tsv") == said({"recommend", finished().run(), "--user", "1"}));
}

TEST_CASE("an empty text is no value of an option", "[streams]") {
  const fs::path run = finished().run();
  check_refused(tally_command({"recommend", run, "--stream", "--state", ""}), 2, {"--state", "needs a text"});
  check_refused(tally_command({"recommend", run, "--user", "1", "--out", ""}), 2, {"--out", "needs a text"});
  check_refused(tally_command({"report", run, "--output", ""}), 2, {"--output", "needs a text"});
  check_refused(tally_command({"evaluate", ""}), 2, {"needs a text"});
  // But a history may have no event.
  CHECK(tally_command({"recommend", run, "--history", ""}).exit_code == 0);
}

}  // namespace standard_streams_test
