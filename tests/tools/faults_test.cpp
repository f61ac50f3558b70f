// A call of the system fails, or the program is killed there: in a training, when it goes on, and in a stream. What
// comes of it in the end is what comes of one that nothing happened to, and nothing is left over. tools/faults.sh goes
// through every call; a few of each kind are slow tests.
#ifdef TALLY_FAULTS

#include <algorithm>
#include <catch2/catch.hpp>
#include <charconv>
#include <cstdlib>
#include <map>

#include "tally/core/io/file.h"
#include "tests/support/process.h"
#include "tests/tools/small_runs.h"

namespace faults_test {

using namespace tally;
using namespace tally::test;

namespace fs = std::filesystem;

namespace {

struct Fault {
  std::string kind;
  std::int64_t number = 0;
  bool kill = false;

  std::string text() const { return kind + ':' + std::to_string(number) + (kill ? ":kill" : ""); }
};

CommandResult with_fault(const Fault& fault, const std::vector<std::string>& arguments,
                         const std::string& input = "/dev/null", const std::string& counts = "/dev/null") {
  std::vector<std::string> words{"LD_PRELOAD=" TALLY_FAULTS,     "TALLY_FAULT=" + fault.text(),
                                 "TALLY_FAULT_COUNTS=" + counts, "TALLY_NUM_THREADS=1",
                                 "OPENBLAS_NUM_THREADS=1",       TALLY_COMMAND};
  words.insert(words.end(), arguments.begin(), arguments.end());
  return Process("/usr/bin/env", words, input).wait();
}

/// Calls of each kind of a command that nothing happens to.
std::map<std::string, std::int64_t> calls_of(const std::vector<std::string>& arguments,
                                             const std::string& input = "/dev/null") {
  const TemporaryDirectory directory;
  const fs::path counts = directory / "counts";
  REQUIRE(with_fault({"none"}, arguments, input, counts).exit_code == 0);
  std::map<std::string, std::int64_t> calls;
  for (const std::string& line : test::lines_of(read_file(counts))) {
    const std::size_t space = line.find(' ');
    std::from_chars(line.data() + space + 1, line.data() + line.size(), calls[line.substr(0, space)]);
  }
  return calls;
}

/// So many of each kind, evenly over all; allocations are too many for all of them. Hours, where all are wanted: the
/// variable TALLY_FAULTS_FROM, e.g. write:120, is the first of those that remain.
std::vector<Fault> faults_over(const std::map<std::string, std::int64_t>& calls, std::int64_t of_each) {
  constexpr std::int64_t kMostAllocations = 200;
  std::vector<Fault> faults;
  for (const auto& [kind, count] : calls) {
    const std::int64_t wanted = std::min({of_each, count, kind == "alloc" ? kMostAllocations : count});
    for (std::int64_t i = 0; i < wanted; ++i) {
      for (const bool kill : {false, true})
        faults.push_back({kind, 1 + i * (count - 1) / std::max<std::int64_t>(wanted - 1, 1), kill});
    }
  }
  if (const char* first = std::getenv("TALLY_FAULTS_FROM")) {
    const auto place = std::find_if(faults.begin(), faults.end(), [&](const Fault& f) { return f.text() == first; });
    REQUIRE(place != faults.end());
    faults.erase(faults.begin(), place);
  }
  return faults;
}

/// Killed, or one sentence and an exit code, or as if nothing had happened.
void check_end(const CommandResult& result, const Fault& fault) {
  INFO(result.error);
  if (fault.kill && result.exit_code == 128 + SIGKILL) return;
  CHECK((result.exit_code >= 0 && result.exit_code <= 2));  // 2: the config could not be read
  CHECK(std::count(result.error.begin(), result.error.end(), '\n') == (result.exit_code == 0 ? 0 : 1));
}

void check_finished(const fs::path& run) {
  check_as_uninterrupted(run);
  CHECK(leftovers(run) == 0);
}

void train_with_faults(std::int64_t of_each) {
  const std::map<std::string, std::int64_t> calls = [] {
    const Workshop workshop;
    return calls_of(workshop.train_arguments());
  }();
  for (const Fault& fault : faults_over(calls, of_each)) {
    INFO(fault.text() << " of " << calls.at(fault.kind));
    const Workshop workshop;
    check_end(with_fault(fault, workshop.train_arguments()), fault);
    const fs::path begun = workshop.run();
    if (begun.empty() || !fs::exists(begun / "config.resolved.json")) {
      fs::remove_all(workshop.output());
      CHECK(workshop.train().exit_code == 0);
    } else {
      CHECK(tally_command({"train", "--resume", begun}).exit_code == 0);
    }
    check_finished(workshop.run());
  }
}

void resume_with_faults(std::int64_t of_each) {
  const Workshop workshop;
  {
    Process process(TALLY_COMMAND, workshop.train_arguments());
    REQUIRE(process.wait_until([&] {
      const fs::path run = workshop.run();
      return !run.empty() && fs::exists(run / "checkpoints/last/manifest.json");
    }));
    process.signal(SIGTERM);
    REQUIRE(process.wait().exit_code == 128 + SIGTERM);
  }
  const auto copy = [&](const TemporaryDirectory& directory) {
    fs::copy(workshop.run(), directory / "run", fs::copy_options::recursive);
    return directory / "run";
  };
  const std::map<std::string, std::int64_t> calls = [&] {
    const TemporaryDirectory directory;
    return calls_of({"train", "--resume", copy(directory)});
  }();
  for (const Fault& fault : faults_over(calls, of_each)) {
    INFO(fault.text() << " of " << calls.at(fault.kind));
    const TemporaryDirectory directory;
    const fs::path run = copy(directory);
    check_end(with_fault(fault, {"train", "--resume", run}), fault);
    CHECK(tally_command({"train", "--resume", run}).exit_code == 0);
    check_finished(run);
  }
}

constexpr int kEvents = 24, kStreamUsers = 3;

std::string events_of(int begin, int end) {
  std::string text;
  for (int e = begin; e < end; ++e) {
    text += detail::join('u', e % kStreamUsers, '\t', 1 + (e * 7 + e / kItems) % kItems, '\n');
  }
  return text;
}

CommandResult stream(const Fault& fault, const fs::path& state, const std::string& input,
                     std::vector<std::string> options = {}) {
  const TemporaryDirectory directory;
  std::vector<std::string> arguments{"recommend", finished().run(), "--stream", "--k", "99", "--state", state};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return with_fault(fault, arguments, directory.write("input", input));
}

/// What a state answers to all users.
std::string answers(const fs::path& state) {
  std::string questions;
  for (int user = 0; user < kStreamUsers; ++user) questions += detail::join('u', user, "\t?\n");
  const CommandResult result = stream({"none"}, state, questions);
  CHECK(result.exit_code == 0);
  return result.out;
}

/// The answers after so many events.
const std::vector<std::string>& answers_after() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> texts;
    for (int events = 0; events <= kEvents; ++events) {
      const TemporaryDirectory directory;
      REQUIRE(stream({"none"}, directory / "state", events_of(0, events)).exit_code == 0);
      texts.push_back(answers(directory / "state"));
    }
    return texts;
  }();
  return all;
}

/// Events that were answered, by the blocks of ranks.
int answered_in(const std::string& out) {
  int count = 0;
  const std::string whole = out.substr(0, out.rfind('\n') + 1);
  for (const std::string& rank : test::lines_of(whole.empty() ? "" : column(whole, "rank"))) {
    for (std::size_t at = 0; at < rank.size(); at = std::min(rank.find(' ', at), rank.size() - 1) + 1) {
      count += rank.substr(at, rank.find(' ', at) - at) == "1";
    }
  }
  return count;
}

void stream_with_faults(std::int64_t of_each) {
  const std::map<std::string, std::int64_t> calls = [] {
    const TemporaryDirectory directory;
    return calls_of({"recommend", finished().run(), "--stream", "--k", "99", "--state", directory / "state"},
                    directory.write("input", events_of(0, kEvents)));
  }();
  for (const Fault& fault : faults_over(calls, of_each)) {
    INFO(fault.text() << " of " << calls.at(fault.kind));
    const TemporaryDirectory directory;
    const fs::path state = directory / "state";
    const CommandResult result = stream(fault, state, events_of(0, kEvents));
    check_end(result, fault);
    const int answered = answered_in(result.out);
    const std::string now = answers(state);
    const auto found = std::find(answers_after().begin() + answered, answers_after().end(), now);
    INFO(answered << " events were answered");
    REQUIRE(found != answers_after().end());
    const int kept = static_cast<int>(found - answers_after().begin());
    CHECK(stream({"none"}, state, events_of(kept, kEvents)).exit_code == 0);
    CHECK(answers(state) == answers_after().back());
    CHECK(leftovers(directory.path()) == 0);
  }
}

/// Commands are registered, and the program says what it is.
void start_with_faults(std::int64_t of_each) {
  const std::map<std::string, std::int64_t> calls = calls_of({"version"});
  for (std::int64_t i = 0; i < of_each; ++i) {
    const Fault fault{"alloc", 1 + i * (calls.at("alloc") - 1) / std::max<std::int64_t>(of_each - 1, 1)};
    INFO(fault.text() << " of " << calls.at("alloc"));
    check_end(with_fault(fault, {"version"}), fault);
  }
}

constexpr std::int64_t kAll = 1'000'000;

}  // namespace

TEST_CASE("a program whose allocations fail as it starts says so", "[faults]") { start_with_faults(40); }
TEST_CASE("a training with a fault goes on to the same bytes", "[faults][slow]") { train_with_faults(3); }
TEST_CASE("a training that goes on with a fault goes on to the same bytes", "[faults][slow]") { resume_with_faults(3); }
TEST_CASE("a stream with a fault has every event that it answered", "[faults][slow]") { stream_with_faults(3); }

TEST_CASE("each allocation of a start fails", "[.][every_fault]") { start_with_faults(4000); }
TEST_CASE("each call of a training fails", "[.][every_fault]") { train_with_faults(kAll); }
TEST_CASE("each call of a training that goes on fails", "[.][every_fault]") { resume_with_faults(kAll); }
TEST_CASE("each call of a stream fails", "[.][every_fault]") { stream_with_faults(kAll); }

}  // namespace faults_test

#endif
