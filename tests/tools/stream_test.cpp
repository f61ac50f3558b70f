// `tally recommend --stream`: a program that is talked to through a pipe.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <sstream>
#include <thread>

#include "tests/support/process.h"
#include "tests/tools/small_runs.h"

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace {

/// `tally recommend RUN --stream` with a pipe to its standard input.
class Stream {
 public:
  explicit Stream(std::vector<std::string> options = {}, const std::string& run = finished().run())
      : pipe_(directory_ / "pipe") {
    REQUIRE(::mkfifo(pipe_.c_str(), 0600) == 0);
    // Opened for both ends, or opening would wait for a reader.
    end_ = ::open(pipe_.c_str(), O_RDWR | O_CLOEXEC);
    REQUIRE(end_ >= 0);
    std::vector<std::string> arguments{"recommend", run, "--stream"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    process_ = std::make_unique<Process>(TALLY_COMMAND, arguments, pipe_);
    // Now that it is open there, this end needs to write only; closing it is the end of the input.
    process_->wait_until([&] { return !process_->output().empty(); });
    const int writing = ::open(pipe_.c_str(), O_WRONLY | O_CLOEXEC);
    ::close(end_);
    end_ = writing;
  }
  ~Stream() { close(); }

  void write(const std::string& text) const {
    REQUIRE(::write(end_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  /// Waits for the first `count` lines after the head.
  std::vector<std::string> lines(std::size_t count) const {
    std::vector<std::string> all;
    CHECK(process_->wait_until([&] {
      all = split(process_->output());
      return all.size() >= count;
    }));
    return all;
  }
  /// Writes as long as there is a reader; returns whether all was written. SIGPIPE must be ignored.
  bool write_if_read(std::string_view text) const {
    while (!text.empty()) {
      const ssize_t count = ::write(end_, text.data(), text.size());
      if (count < 0) return false;
      text.remove_prefix(static_cast<std::size_t>(count));
    }
    return true;
  }
  void limit_memory(std::size_t bytes) const { process_->limit_memory(bytes); }
  void signal(int number) const { process_->signal(number); }
  void close() {
    if (end_ >= 0) ::close(end_);
    end_ = -1;
  }
  CommandResult finish() {
    close();
    return process_->wait();
  }
  /// The same while this end stays open.
  CommandResult wait() { return process_->wait(); }
  /// What nobody has read of what was written.
  std::string unread() const {
    const int reading = ::open(pipe_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    std::string text;
    char block[4096];
    for (ssize_t got; (got = ::read(reading, block, sizeof(block))) > 0;)
      text.append(block, static_cast<std::size_t>(got));
    ::close(reading);
    return text;
  }

  /// Lines after the head.
  static std::vector<std::string> split(const std::string& text) {
    std::istringstream in(text);
    std::vector<std::string> all;
    std::string line;
    if (std::getline(in, line)) CHECK(line == "user_id\titem_id\tscore\trank\ttitle\tranker");
    while (std::getline(in, line)) all.push_back(line);
    return all;
  }

 private:
  TemporaryDirectory directory_;
  std::string pipe_;
  int end_ = -1;
  std::unique_ptr<Process> process_;
};

std::vector<std::string> cells(const std::string& line) {
  std::istringstream in(line);
  std::vector<std::string> all;
  for (std::string cell; std::getline(in, cell, '\t');) all.push_back(cell);
  return all;
}

}  // namespace

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
  const std::vector<std::pair<std::string, std::string>> faults{{"no tab", "two columns"},
                                                                {"a\t1\t2", "two columns"},
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
  CHECK_THAT(end.error, Contains("7 bad lines") && Contains("[standard input:2]"));
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
    check_refused(refused.wait(), 1, {"is being written by another process (pid "});
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
                                                               {"\x7f", "\\x7f"}};
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
