// `tally recommend --stream`: a program that is talked to through a pipe.
#include <catch2/catch.hpp>
#include <chrono>
#include <sstream>
#include <thread>

#include "tests/tools/stream_process.h"

namespace stream_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

TEST_CASE("each event of a stream is answered at once, as for the whole history", "[stream]") {
  Stream stream({"--k", "4"});
  stream.write("ann\t1\n");
  CHECK(stream.lines(4).size() == 4);
  stream.write("bob\t7\r\nann\t2\n");
  stream.lines(12);
  // In pieces, and a query.
  stream.write("ann");
  stream.write("\t3\nbob\t");
  stream.lines(16);
  stream.write("?\n");
  const std::vector<std::string> lines = stream.lines(20);
  REQUIRE(lines.size() == 20);
  const auto expect = [&](std::size_t begin, const std::string& user, const std::string& history) {
    const CommandResult whole = tally_command({"recommend", finished().run(), "--history", history, "--k", "4"});
    std::istringstream in(whole.out);
    std::string line;
    std::getline(in, line);
    for (std::size_t r = 0; r < 4; ++r) {
      std::getline(in, line);
      const auto expected = cells(line), got = cells(lines[begin + r]);  // rank item score title
      REQUIRE(got.size() == 6);
      CHECK(got[0] == user);
      CHECK(got[1] == expected[1]);
      CHECK(std::stod(got[2]) == Approx(std::stod(expected[2])).epsilon(1e-3).margin(1e-4));
      CHECK(got[3] == expected[0]);
      CHECK(got[4] == expected[3]);
    }
  };
  expect(0, "ann", "1");
  expect(4, "bob", "7");
  expect(8, "ann", "1,2");
  expect(12, "ann", "1,2,3");
  expect(16, "bob", "7");
  const CommandResult end = stream.finish();
  CHECK(end.exit_code == 0);
  CHECK(end.error.empty());
}

TEST_CASE("a stream that answers queries alone", "[stream]") {
  Stream stream({"--k", "2", "--answer", "queries"});
  stream.write("ann\t1\nbob\t2\nann\t3\nann\t?\nbob\t?");
  const CommandResult end = stream.finish();  // the last line has no end
  CHECK(end.exit_code == 0);
  const std::vector<std::string> lines = Stream::split(end.out);
  REQUIRE(lines.size() == 4);
  CHECK(cells(lines[0])[0] == "ann");
  CHECK(cells(lines[3])[0] == "bob");
}

TEST_CASE("a bad line ends a stream, or is counted", "[stream]") {
  const std::vector<std::pair<std::string, std::string>> faults{
      {"no tab", "two columns"},
      {"a\t1\t2\t3", "two columns"},
      {"a\t1\tnoon", "a time that is a finite number; got 'noon'"},
      {"a\t1\t1e300", "a time of at most 2^53"},
      {"\t1", "needs a user and an item"},
      {"a\t", "needs a user and an item"},
      {"", "two columns"},
      {"a\tunheard-of", "item 'unheard-of'"},
      {"nobody\t", "needs a user and an item"}};
  std::string all = "a\t1\n";
  for (const auto& [line, words] : faults) {
    Stream stream({"--k", "1"});
    stream.write("a\t1\nb\t2\n" + line + "\na\t3\n");
    const CommandResult end = stream.finish();
    CHECK(Stream::split(end.out).size() == 2);
    check_refused(end, 1, {"[standard input:3]", words});
    all += line + '\n';
  }
  Stream stream({"--k", "1", "--bad-lines", "skip"});
  stream.write(all + "a\t3\n");
  const CommandResult end = stream.finish();
  CHECK(end.exit_code == 0);
  CHECK(Stream::split(end.out).size() == 2);
  CHECK_THAT(end.error, Contains("9 bad lines") && Contains("[standard input:2]"));
}

TEST_CASE("a stream keeps its users in a directory, also when it is stopped", "[stream]") {
  const TemporaryDirectory directory;
  const std::string state = directory / "state";
  {
    Stream stream({"--state", state, "--k", "3"});
    stream.write("ann\t1\nann\t2\nbob\t5\n");
    stream.lines(9);
    stream.signal(SIGTERM);
    CHECK(stream.finish().exit_code == 128 + SIGTERM);
  }
  std::vector<std::string> uninterrupted;
  {
    Stream stream({"--k", "3"});
    stream.write("ann\t1\nann\t2\nbob\t5\nann\t3\nbob\t?\n");
    uninterrupted = stream.lines(15);
  }
  {
    Stream stream({"--state", state, "--k", "3"});
    stream.write("ann\t3\nbob\t?\nbob\tbad\n");
    const CommandResult end = stream.finish();
    CHECK(end.exit_code == 1);
    CHECK(Stream::split(end.out) == std::vector<std::string>(uninterrupted.begin() + 9, uninterrupted.end()));
  }
  {
    // What came before the bad line was kept.
    Stream stream({"--state", state, "--k", "3", "--max-sessions", "1"});
    stream.write("ann\t?\ncid\t1\nann\t?\n");
    const CommandResult end = stream.finish();
    CHECK(end.exit_code == 0);
    const std::vector<std::string> lines = Stream::split(end.out);
    REQUIRE(lines.size() == 9);
    CHECK(cells(lines[2])[5] == "model");
    CHECK(cells(lines[6])[5] == "popularity");  // ann was forgotten
  }
  check_refused(tally_command({"recommend", finished().run(), "--state", state}), 2, {"--stream"});
  check_refused(tally_command({"recommend", finished().run(), "--stream", "--out", state}), 2, {"--out"});
  check_refused(tally_command({"recommend", finished().run(), "--stream", "--history", "1"}), 2, {"one of the four"});
  check_refused(tally_command({"recommend", finished().run(), "--stream", "--state", finished().run().string()}), 1,
                {"manifest"});
}

TEST_CASE("a stream that is stopped keeps every line that it has read", "[stream]") {
  const TemporaryDirectory directory;
  const std::string state = directory / "state";
  Stream stream({"--state", state, "--k", "1"});
  constexpr std::int64_t kLines = 6000;
  std::string text;
  for (std::int64_t i = 0; i < kLines; ++i) text += "u" + std::to_string(i) + "\t1\n";
  REQUIRE(text.size() < 1 << 16);  // what a pipe holds
  stream.write(text);
  stream.lines(1);
  stream.signal(SIGTERM);
  CHECK(stream.wait().exit_code == 128 + SIGTERM);
  const std::string unread = stream.unread();
  const Json saved = parse_json(read_file(std::filesystem::path(state) / "manifest.json"));
  CHECK(saved.at("fields").at("sessions").as_integer() + std::count(unread.begin(), unread.end(), '\n') == kLines);
}

TEST_CASE("users of a stream survive a save that was cut off between two names", "[stream]") {
  const TemporaryDirectory directory;
  const std::string state = directory / "state";
  const auto stream = [&](const std::string& text) {
    Stream one({"--state", state, "--k", "1"});
    one.write(text);
    return one.finish();
  };
  CHECK(stream("ann\t1\n").exit_code == 0);
  std::filesystem::rename(state, directory / ".previous-state");
  const CommandResult end = stream("ann\t?\n");
  CHECK(end.exit_code == 0);
  CHECK(Stream::split(end.out).size() == 1);
}

TEST_CASE("a compressed directory streams as its run does, and reads its users", "[stream]") {
  const Workshop workshop;
  const CommandResult trained =
      workshop.train({"--model.name=lisa", "--model.codebooks=2", "--model.codewords=5", "--train.epochs=1"});
  INFO(trained.error);
  REQUIRE(trained.exit_code == 0);
  const std::string served = workshop.files() / "served", state = workshop.files() / "state";
  REQUIRE(tally_command({"compress", workshop.run(), "--output", served}).exit_code == 0);
  const auto answers = [&](const std::string& from, std::vector<std::string> options) {
    options.insert(options.end(), {"--k", "5"});
    Stream stream(options, from);
    stream.write("ann\t1\nbob\t7\nann\t2\n");
    const CommandResult end = stream.finish();
    CHECK(end.exit_code == 0);
    return Stream::split(end.out);
  };
  const std::vector<std::string> of_run = answers(workshop.run(), {"--state", state});
  CHECK(of_run.size() == 15);
  CHECK(answers(served, {}) == of_run);
  Stream going_on({"--state", state, "--k", "5"}, served);
  going_on.write("ann\t?\n");
  const CommandResult end = going_on.finish();
  CHECK(end.exit_code == 0);
  CHECK(Stream::split(end.out) == std::vector<std::string>(of_run.end() - 5, of_run.end()));
}

TEST_CASE("a byte order mark begins a stream and no name", "[stream]") {
  const std::string mark = "\xEF\xBB\xBF";
  for (const std::vector<std::string>& pieces : std::vector<std::vector<std::string>>{
           {mark + "u1\t5\nu1\t6\n"}, {"\xEF", "\xBB", "\xBFu1\t5", "\nu1\t6\n"}, {mark, "u1\t5\r\nu1\t6"}}) {
    Stream stream({"--k", "2"});
    for (const std::string& piece : pieces) {
      stream.write(piece);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    const CommandResult end = stream.finish();
    CHECK(end.exit_code == 0);
    const std::vector<std::string> lines = Stream::split(end.out);
    REQUIRE(lines.size() == 4);
    for (const std::string& line : lines) CHECK(cells(line)[0] == "u1");
  }
  // Only at the very start, and only whole.
  const auto users_of = [](const std::string& text) {
    Stream stream({"--k", "1"});
    stream.write(text);
    const CommandResult end = stream.finish();
    std::vector<std::string> users;
    for (const std::string& line : Stream::split(end.out)) users.push_back(cells(line)[0]);
    return users;
  };
  CHECK(users_of(mark).empty());
  CHECK(users_of("\xEF").empty());
}

TEST_CASE("names with control characters are bad lines of a stream", "[stream]") {
  const std::vector<std::pair<std::string, std::string>> users{{std::string("a\0b", 3), "a\\x00b"},
                                                               {"a\x01", "a\\x01"},
                                                               {"\x1b[1mbold", "\\x1b[1mbold"},
                                                               {"a\rb", "a\\x0db"},
                                                               {"\x7f", "\\u007f"}};
  std::string all;
  for (const auto& [user, shown] : users) {
    for (const char* item : {"1", "?"}) {
      Stream stream({"--k", "1"});
      stream.write("good\t1\n" + user + '\t' + item + '\n');
      const CommandResult end = stream.finish();
      check_refused(end, 1, {"[standard input:2]", "without control characters", shown});
      CHECK(Stream::split(end.out).size() == 1);
    }
    all += user + "\t1\n";
  }
  Stream stream({"--k", "1", "--bad-lines", "skip"});
  stream.write(all + "good\t" + std::string("1\0", 2) + "\ngood\t1\nna\xC3\xAFve\t2\n");
  const CommandResult end = stream.finish();
  CHECK(end.exit_code == 0);
  CHECK(Stream::split(end.out).size() == 2);
  CHECK_THAT(end.error, Contains("6 bad lines"));
}

}  // namespace stream_test
