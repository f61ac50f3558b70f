// A training that a signal comes to ends at a point of its choice, wherever it is, and goes on to the same bytes.
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <sstream>

#include "tally/core/io/file.h"
#include "tally/recsys/run/train_run.h"
#include "tests/support/process.h"
#include "tests/tools/small_runs.h"

namespace stop_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace fs = std::filesystem;

namespace {

/// A training that reads its data from a pipe that this test writes.
class ReadingRun {
 public:
  ReadingRun() : pipe_(workshop_.files() / "pipe.csv") {
    REQUIRE(::mkfifo(pipe_.c_str(), 0600) == 0);
    // Opened for both: neither side waits for the other.
    file_ = ::open(pipe_.c_str(), O_RDWR | O_NONBLOCK);
    REQUIRE(file_ >= 0);
    write("userId,movieId,rating,timestamp\n");
    process_.emplace(TALLY_COMMAND, workshop_.train_arguments({"--data.path=" + pipe_.string(), "--threads=1"}));
  }
  ~ReadingRun() { ::close(file_); }

  /// More than a pipe holds: the process has read some of it. One that has ended reads no more.
  void write_rows() {
    std::string rows;
    for (int i = 0; i < 20'000; ++i) rows += detail::join(i / 20, ',', i % 20, ",4.0,", i, '\n');
    write(rows);
  }
  /// Waits until the process has taken all rows, and for a while that it needs to ask for more.
  void wait_until_read() {
    REQUIRE(process_->wait_until([&] {
      int left = 0;
      return ::ioctl(file_, FIONREAD, &left) == 0 && left == 0;
    }));
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  Process& process() { return *process_; }
  const Workshop& workshop() const { return workshop_; }

 private:
  void write(const std::string& text) {
    for (std::size_t done = 0; done < text.size();) {
      const ssize_t count = ::write(file_, text.data() + done, text.size() - done);
      if (count > 0) done += static_cast<std::size_t>(count);
      if (count > 0 || !process_) continue;
      if (!process_->is_running()) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  Workshop workshop_;
  fs::path pipe_;
  int file_ = -1;
  std::optional<Process> process_;
};

}  // namespace

TEST_CASE("a signal stops a training while it reads", "[stop]") {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    ReadingRun run;
    run.write_rows();
    run.process().signal(signal);
    run.write_rows();
    const CommandResult result = run.process().wait();
    CHECK(result.exit_code == 128 + signal);
    CHECK(result.out == "stopped before there was a run\n");
    CHECK(result.error == "");
    CHECK(run.workshop().run().empty());
  }
}

TEST_CASE("a signal stops a training that waits for rows", "[stop]") {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    ReadingRun run;
    run.write_rows();
    run.wait_until_read();
    run.process().signal(signal);
    const CommandResult result = run.process().wait();
    CHECK(result.exit_code == 128 + signal);
    CHECK(result.out == "stopped before there was a run\n");
    CHECK(run.workshop().run().empty());
  }
}

TEST_CASE("a signal stops a training whose data or titles nobody writes yet", "[stop]") {
  for (const char* key : {"data.path", "titles"}) {
    INFO(key);
    const Workshop workshop;
    const std::string pipe = workshop.files() / "pipe.csv";
    REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
    Process process(TALLY_COMMAND, workshop.train_arguments({"--" + std::string(key) + "=" + pipe}));
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    CHECK(process.is_running());
    process.signal(SIGTERM);
    CHECK(process.wait().exit_code == 128 + SIGTERM);
    CHECK(workshop.run().empty());
  }
}

#if !defined(__SANITIZE_THREAD__)  // which holds signals back while the C library writes
TEST_CASE("a second signal of any kind ends a program that waits", "[stop]") {
  for (const auto& [first, second] : {std::pair{SIGTERM, SIGHUP}, {SIGHUP, SIGTERM}, {SIGINT, SIGTERM}}) {
    // What it says goes into a pipe that is full, and that nobody reads.
    const Workshop workshop;
    const std::string pipe = workshop.files() / "pipe";
    REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
    const int file = ::open(pipe.c_str(), O_RDWR | O_NONBLOCK);
    REQUIRE(file >= 0);
    while (::write(file, "x", 1) == 1) continue;
    std::vector<std::string> words{"-c", "exec \"$@\" >'" + pipe + "'", "sh", TALLY_COMMAND};
    for (const std::string& word : workshop.train_arguments()) words.push_back(word);
    Process process("/bin/sh", words);
    REQUIRE(process.wait_until([&] { return !workshop.run().empty(); }));
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    process.signal(first);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    CHECK(process.is_running());
    process.signal(second);
    CHECK(process.wait().exit_code == 128 + second);
    ::close(file);
  }
}
#endif

namespace {

/// A shell's command that trains with SIGHUP ignored, as nohup does.
std::string train_without_hangups(const Workshop& workshop) {
  std::string command = "trap '' HUP; exec " TALLY_COMMAND;
  for (const std::string& word : workshop.train_arguments()) command += " '" + word + "'";
  return command;
}

}  // namespace

TEST_CASE("a signal that was ignored stays so", "[stop]") {
  const Workshop workshop;
  Process process("/bin/sh", {"-c", train_without_hangups(workshop)});
  REQUIRE(process.wait_until([&] { return !workshop.run().empty(); }));
  process.signal(SIGHUP);
  CHECK(process.wait().exit_code == 0);
}

TEST_CASE("a signal that was ignored stays so while another stops a training", "[stop]") {
  const Workshop workshop;
  Process process("/bin/sh", {"-c", train_without_hangups(workshop)});
  REQUIRE(process.wait_until([&] { return !workshop.run().empty(); }));
  process.signal(SIGTERM);
  for (int again = 0; again < 50; ++again) process.signal(SIGHUP);
  CHECK(process.wait().exit_code == 128 + SIGTERM);
}

namespace {

/// Trains in a workshop, stopped at the n-th time that it asks whether it should, and goes on. Returns whether it asked
/// so often.
bool stops_and_goes_on(std::int64_t nth) {
  const Workshop workshop;
  const recsys::Tables tables = recsys::standard();
  const recsys::RunConfig config = recsys::load_config(workshop.config(), {}, tables);
  std::ostringstream said;
  recsys::Console console(said, false);
  std::int64_t asked = 0;
  const StopRequested stop = [&] { return ++asked == nth; };
  const recsys::RunDirectory directory{workshop.files() / "run"};
  INFO("asked " << nth << " times");
  try {
    const recsys::RunOutcome outcome = recsys::train_run(config, directory, console, stop);
    if (outcome.training == nn::TrainingOutcome::finished) {
      CHECK(asked < nth);
      return false;
    }
    CHECK_THAT(said.str(), Contains("stopped after step ") && Contains("tally train --resume"));
    CHECK_FALSE(fs::exists(directory.test_metrics()));
    CHECK(recsys::resume_run(directory, console).training == nn::TrainingOutcome::finished);
  } catch (const Stopped&) {
    CHECK_FALSE(fs::exists(directory.path));
    return true;
  }
  check_as_uninterrupted(directory.path);
  return true;
}

}  // namespace

TEST_CASE("a training stopped while it evaluates, validates or tests goes on to the same bytes", "[stop]") {
  // The first two are asked while the data are read, the next two in the baselines.
  for (const std::int64_t nth : {2, 3, 4, 5}) CHECK(stops_and_goes_on(nth));
}

TEST_CASE("a training stopped early or late goes on to the same bytes", "[stop][slow]") {
  std::int64_t nth = 1;
  while (stops_and_goes_on(nth)) nth += 1 + nth / 6;
  CHECK(nth > 20);
}

}  // namespace stop_test
