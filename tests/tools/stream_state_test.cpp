// What a stream's state holds after kills, failures and a second writer.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <sstream>
#include <thread>

#include "tests/tools/stream_process.h"

namespace stream_state_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace {

/// Lines for a stream. Every event has a user of its own, so that users count events; every second is of one of seven
/// users who come again, so that order matters.
struct Traffic {
  std::vector<std::string> lines;     ///< events, and queries when only these are answered
  std::vector<std::int64_t> answers;  ///< for each answer, the events that came before it

  Traffic(std::int64_t events, bool queries) {
    for (std::int64_t e = 0; e < events; ++e) {
      const std::string item = std::to_string(1 + (e * 7 + e / 40) % kItems);
      lines.push_back(user_of(e) + '\t' + item);
      if (!queries || e % 9 == 8) answers.push_back(e + 1);
      if (queries && e % 9 == 8) lines.push_back(user_of(e) + "\t?");
    }
  }
  static std::string user_of(std::int64_t event) {
    return event % 2 == 0 ? "new" + std::to_string(event) : "old" + std::to_string(event / 2 % 7);
  }
  /// Users after the first events.
  static std::int64_t users(std::int64_t events) { return (events + 1) / 2 + std::min<std::int64_t>(events / 2, 7); }
  std::string text(std::int64_t events = -1) const {
    std::string all;
    for (const std::string& line : lines) {
      if (!line.ends_with('?') && events-- == 0) break;
      all += line + '\n';
    }
    return all;
  }
};

/// What a stream over this input and state answers, as one result.
CommandResult stream_of(const std::string& input, const std::filesystem::path& state,
                        std::vector<std::string> options = {}) {
  const TemporaryDirectory directory;
  const std::string text = directory.write("input", input);
  std::vector<std::string> arguments{"recommend", finished().run(), "--stream", "--k", "1", "--state", state};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return Process(TALLY_COMMAND, arguments, text).wait();
}

/// Holds the users in a state against a stream of the same events that nothing interrupted; returns how many events the
/// state has. Those who come again tell the last event apart.
std::int64_t check_prefix(const Traffic& traffic, const std::filesystem::path& state, std::int64_t answered) {
  std::string questions;
  for (int u = 0; u < 7; ++u) questions += "old" + std::to_string(u) + "\t?\n";
  const CommandResult after = stream_of(questions, state, {"--bad-lines", "skip"});
  CHECK(after.exit_code == 0);
  const Json manifest = parse_json(read_file(state / "manifest.json"));
  const std::int64_t users = manifest.at("fields").at("sessions").as_integer();
  std::int64_t kept = -1;
  for (std::int64_t events = std::max<std::int64_t>(answered, 0);
       events <= static_cast<std::int64_t>(traffic.lines.size()); ++events) {
    if (Traffic::users(events) != users) continue;
    const TemporaryDirectory fresh;
    stream_of(traffic.text(events), fresh / "state", {"--answer", "queries"});
    const CommandResult expected = stream_of(questions, fresh / "state", {"--bad-lines", "skip"});
    if (expected.out == after.out) kept = events;
    if (kept >= 0) break;
  }
  INFO(answered << " events were answered, " << users << " users are kept");
  CHECK(kept >= answered);
  return kept;
}

/// Kills streams at random moments, and counts what is kept of what was answered.
void kill_streams(int rounds) {
  std::uint64_t x = 17;
  std::int64_t cut = 0;
  for (int round = 0; round < rounds; ++round) {
    const bool queries = round % 2 == 1;
    const Traffic traffic(6000, queries);
    const TemporaryDirectory directory;
    const std::filesystem::path state = directory / "state";
    std::vector<std::string> arguments{"recommend", finished().run(), "--stream", "--k", "1", "--state", state};
    if (queries) arguments.insert(arguments.end(), {"--answer", "queries"});
    Process process(TALLY_COMMAND, arguments, directory.write("input", traffic.text()));
    process.wait_until([&] { return !process.output().empty(); });
    x = x * 6364136223846793005ULL + 1442695040888963407ULL;
    std::this_thread::sleep_for(std::chrono::microseconds((x >> 33) % (queries ? 20000 : 60000)));
    process.signal(SIGKILL);
    const CommandResult killed = process.wait();
    const auto lines = static_cast<std::size_t>(std::count(killed.out.begin(), killed.out.end(), '\n'));
    // Those who come again run out of items, and have no line any more; so answers are known by their users.
    std::int64_t answered = 0;
    std::size_t answer = 0;
    std::istringstream out(killed.out.substr(0, killed.out.rfind('\n') + 1));
    std::string line;
    std::getline(out, line);
    while (std::getline(out, line)) {
      while (answer < traffic.answers.size() && Traffic::user_of(traffic.answers[answer] - 1) != cells(line)[0])
        ++answer;
      REQUIRE(answer < traffic.answers.size());
      answered = traffic.answers[answer++];
    }
    INFO("round " << round << ", " << lines << " lines");
    const std::int64_t kept = check_prefix(traffic, state, answered);
    cut += kept < 6000 ? 1 : 0;
  }
  CHECK(cut > 0);
}

}  // namespace

TEST_CASE("a stream that is killed has every event that it answered", "[stream]") { kill_streams(4); }

TEST_CASE("a stream that is killed 50 times has every event that it answered", "[stream][slow]") { kill_streams(50); }

TEST_CASE("a stream that goes on after a kill forgets whom it would have forgotten", "[stream]") {
  const TemporaryDirectory directory;
  const auto lines = [&](int from, int to) {
    std::string text;
    for (int e = from; e < to; ++e)
      text += "u" + std::to_string(e * 5 % 40) + '\t' + std::to_string(1 + e % kItems) + '\n';
    return text;
  };
  std::string questions;
  for (int u = 0; u < 40; ++u) questions += "u" + std::to_string(u) + "\t?\n";
  const std::vector<std::string> options{"--max-sessions", "20", "--k", "2"};
  Stream whole(options);
  whole.write(lines(0, 150) + "u5\t?\n" + lines(150, 300));
  const CommandResult expected = whole.finish();
  std::vector<std::string> with_state = options;
  with_state.insert(with_state.end(), {"--state", directory / "state"});
  std::vector<std::string> got;
  const auto keep = [&](const std::vector<std::string>& some) { got.insert(got.end(), some.begin(), some.end()); };
  {
    Stream first(with_state);
    first.write(lines(0, 150) + "u5\t?\n");
    keep(first.lines(302));
    first.signal(SIGKILL);
    CHECK(first.wait().exit_code == 128 + SIGKILL);
  }
  Stream second(with_state);
  second.write(lines(150, 300));
  keep(Stream::split(second.finish().out));
  CHECK(got == Stream::split(expected.out));
}

TEST_CASE("one of two streams over one state is refused, and a killed one is no obstacle", "[stream]") {
  const TemporaryDirectory directory;
  const std::string state = directory / "state";
  std::filesystem::create_directory_symlink("state", directory / "link");
  const std::string pipe = directory / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const int end = ::open(pipe.c_str(), O_RDWR | O_CLOEXEC);
  for (int round = 0; round < 20; ++round) {
    const auto arguments = [&](const char* name) {
      return std::vector<std::string>{"recommend", finished().run(), "--stream",      "--k",
                                      "1",         "--state",        directory / name};
    };
    // Started at once, both reading one pipe: whoever comes first has the state.
    Process one(TALLY_COMMAND, arguments("state"), pipe), other(TALLY_COMMAND, arguments("link"), pipe);
    one.wait_until([&] { return !other.is_running(); });
    REQUIRE(one.is_running() != other.is_running());
    Process& refused = one.is_running() ? other : one;
    Process& working = one.is_running() ? one : other;
    check_refused(refused.wait(), 1, {"is being written by another process"});  // which may not have said its pid yet
    const std::string line = "round" + std::to_string(round) + "\t1\n";
    REQUIRE(::write(end, line.data(), line.size()) == static_cast<ssize_t>(line.size()));
    CHECK(working.wait_until([&] { return Stream::split(working.output()).size() == 1; }));
    working.signal(SIGKILL);
    CHECK(working.wait().exit_code == 128 + SIGKILL);
  }
  ::close(end);
  std::string questions;
  for (int round = 0; round < 20; ++round) questions += "round" + std::to_string(round) + "\t?\n";
  const CommandResult after = stream_of(questions, state);
  CHECK(after.exit_code == 0);
  CHECK(Stream::split(after.out).size() == 20);
}

TEST_CASE("a state that cannot be written is refused before the first line is read", "[stream]") {
  const TemporaryDirectory directory;
  const std::string file = directory.write("file", "mine");
  std::filesystem::create_directory(directory / "foreign");
  directory.write("foreign/notes", "mine");
  std::filesystem::create_symlink("file", directory / "to file");
  // Nobody creates files in /sys, the superuser included.
  const std::vector<std::pair<std::string, std::string>> states{{file, "a directory"},
                                                                {directory / "to file", "a directory"},
                                                                {directory / "none/state", "cannot be written"},
                                                                {"/sys/state", "cannot be written"},
                                                                {directory / "foreign", "manifest"}};
  for (const auto& [state, words] : states) {
    INFO(state);
    const CommandResult result =
        run_command("/bin/sh", {"-c", "printf 'ann\\t1\\n' | { \"$@\"; code=$?; cat; exit $code; }", "sh",
                                TALLY_COMMAND, "recommend", finished().run(), "--stream", "--state", state});
    check_refused(result, 1, {words});
    CHECK(result.out == "ann\t1\n");
  }
  CHECK(read_file(file) == "mine");
  CHECK(read_file(directory / "foreign/notes") == "mine");
}

TEST_CASE("a stream without room goes on later from what it answered", "[stream]") {
  const TemporaryDirectory directory;
  const std::filesystem::path state = directory / "state";
  const Traffic traffic(3000, true);
  const std::string input = directory.write("input", traffic.text());
  // Blocks of 512 bytes. Answers go through a pipe: the limit is one of every file.
  const CommandResult full =
      run_command("/bin/sh", {"-c", "in=$1; shift; { (ulimit -f 16; exec \"$@\") <\"$in\"; echo $? >&2; } | cat", "sh",
                              input, TALLY_COMMAND, "recommend", finished().run(), "--stream", "--k", "1", "--answer",
                              "queries", "--state", state});
  CHECK_THAT(full.error, Contains("events.log] cannot write: File too large"));
  CHECK_THAT(full.error, Catch::Matchers::EndsWith("\n1\n"));
  CHECK(std::count(full.error.begin(), full.error.end(), '\n') == 2);
  const auto answers = static_cast<std::int64_t>(Stream::split(full.out).size());
  std::int64_t kept = check_prefix(traffic, state, answers == 0 ? 0 : traffic.answers[0]);
  CHECK(kept > 0);
  CHECK(kept < 3000);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which end a program that runs out of memory
TEST_CASE("a stream that runs out of memory keeps what it answered", "[stream]") {
  const TemporaryDirectory directory;
  const std::filesystem::path state = directory / "state";
  // Users with names so long that a hundred of them need more than is there.
  constexpr int kLong = 400;
  ignore_write_signals();
  Stream stream({"--state", state, "--k", "1", "--answer", "queries"});
  stream.write("short\t1\nshort\t?\n");
  stream.lines(1);
  stream.limit_memory(std::size_t{40} << 20);
  for (int u = 0; u < kLong; ++u) {
    const std::string user = "short" + std::to_string(u);
    const std::string lines = user + "\t1\n" + user + "\t?\n" + std::to_string(u) + std::string(500000, 'x') + "\t2\n";
    if (!stream.write_if_read(lines)) break;
  }
  const CommandResult result = stream.finish();
  check_refused(result, 1, {"not enough memory"});
  const std::vector<std::string> answered = Stream::split(result.out);
  CHECK(answered.size() > 1);
  CHECK(answered.size() < kLong);
  std::string questions = "short\t?\n";
  for (std::size_t u = 0; u + 1 < answered.size(); ++u) questions += "short" + std::to_string(u) + "\t?\n";
  const CommandResult after = stream_of(questions, state);
  CHECK(after.exit_code == 0);
  CHECK(Stream::split(after.out) == answered);
}
#endif

TEST_CASE("files of others in a stream's state survive its saves", "[stream]") {
  const TemporaryDirectory directory;
  const std::filesystem::path state = directory / "state";
  CHECK(stream_of("ann\t1\n", state).exit_code == 0);
  directory.write("state/notes.txt", "mine");
  std::filesystem::create_directory(state / "backup");
  directory.write("state/backup/users.bin", "mine too");
  for (int round = 0; round < 3; ++round) CHECK(stream_of("ann\t2\n", state).exit_code == 0);
  CHECK(read_file(state / "notes.txt") == "mine");
  CHECK(read_file(state / "backup/users.bin") == "mine too");
}

}  // namespace stream_state_test
