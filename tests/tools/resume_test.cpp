// A run that is killed, stopped or out of disk goes on to the bytes of one that nothing interrupted.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <fstream>
#include <thread>

#include "tally/core/io/file.h"
#include "tally/core/random.h"
#include "tests/support/process.h"
#include "tests/tools/small_runs.h"

namespace resume_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;

bool has_config(const Workshop& workshop) {
  const fs::path run = workshop.run();
  return !run.empty() && fs::exists(run / "config.resolved.json");
}

std::ptrdiff_t log_lines(const Workshop& workshop) {
  if (!has_config(workshop) || !fs::exists(workshop.run() / "metrics.jsonl")) return 0;
  const std::string text = read_file(workshop.run() / "metrics.jsonl");
  return std::count(text.begin(), text.end(), '\n');
}

/// Starts a run and stops it by a signal before its first step is done.
CommandResult stop_early(const Workshop& workshop, int signal) {
  Process process(TALLY_COMMAND, workshop.train_arguments());
  // What it says of the training is written when the baselines, in which it would stop too, are evaluated.
  REQUIRE(process.wait_until([&] { return has_config(workshop) && fs::exists(workshop.run() / "training.json"); }));
  process.signal(signal);
  return process.wait();
}

}  // namespace

TEST_CASE("the weights of a run do not depend on the threads", "[resume][slow]") {
  for (const char* threads : {"1", "2", "8"}) {
    const Workshop workshop;
    REQUIRE(workshop.train({"--threads", threads}).exit_code == 0);
    INFO(threads << " threads");
    check_as_uninterrupted(workshop.run());
  }
}

TEST_CASE("the log of a run has every epoch, validation and test once", "[resume][slow]") {
  const std::vector<std::string> records = logged(finished().run());
  for (int epoch = 1; epoch <= kEpochs; ++epoch) {
    for (const char* event : {"epoch", "validation"}) {
      const auto is_it = [&](const std::string& record) {
        const Json json = parse_json(record);
        return json.at("event") == Json(event) && json.at("epoch") == Json(epoch);
      };
      const auto lines = std::count_if(records.begin() + 3, records.end() - 1, is_it);
      CHECK(lines == 1);
    }
  }
  // Before the lines of metrics.jsonl stand three other files.
  CHECK(records.size() == 3 + 2 * kEpochs + 1);
  CHECK(parse_json(records.back()).at("event") == Json("test"));
}

TEST_CASE("a run that is killed again and again goes on to the same bytes", "[resume][slow]") {
  // Each round lets the run come as far as a line of its log, and kills it within a line's time after that: anywhere in
  // an epoch, a validation or a checkpoint, however fast the machine is.
  const auto line_time = [] {
    const Workshop workshop;
    Process process(TALLY_COMMAND, workshop.train_arguments());
    REQUIRE(process.wait_until([&] { return log_lines(workshop) >= 1; }));
    const auto start = Clock::now();
    REQUIRE(process.wait().exit_code == 0);
    return std::chrono::duration<double>(Clock::now() - start) / (2 * kEpochs);
  }();
  const RngKey key{4, 8};
  std::uint64_t draw = 0;
  const auto random_below = [&](std::uint64_t bound) { return uniform_below(key, draw++, 0, bound); };
  for (int trial = 0; trial < 3; ++trial) {
    const Workshop workshop;
    int killed = 0;
    for (std::ptrdiff_t lines = 1; lines < 2 * kEpochs; lines += 1 + static_cast<std::ptrdiff_t>(random_below(3))) {
      const fs::path run = workshop.run();
      Process process(TALLY_COMMAND,
                      run.empty() ? workshop.train_arguments() : std::vector<std::string>{"train", "--resume", run});
      process.wait_until([&] { return log_lines(workshop) >= lines; });
      std::this_thread::sleep_for(line_time * (static_cast<double>(random_below(1000)) / 1000));
      process.signal(SIGKILL);
      killed += process.wait().exit_code == 128 + SIGKILL;
    }
    INFO("trial " << trial);
    CHECK(killed > 0);
    const fs::path run = workshop.run();
    const CommandResult last = tally_command({"train", "--resume", run});
    INFO(last.error);
    REQUIRE(last.exit_code == 0);
    check_as_uninterrupted(run);
    CHECK(leftovers(run) == 0);
  }
}

TEST_CASE("SIGTERM and SIGINT save a checkpoint, and the run goes on to the same bytes", "[resume][slow]") {
  for (const int signal : {SIGTERM, SIGINT}) {
    const Workshop workshop;
    const CommandResult result = stop_early(workshop, signal);
    CHECK(result.exit_code == 128 + signal);
    CHECK(result.error.empty());
    CHECK_THAT(result.out, Contains("stopped after step ") &&
                               Contains("go on with: tally train --resume " + workshop.run().string()));
    CHECK(fs::exists(workshop.run() / "checkpoints/last/optimizer.safetensors"));
    CHECK_FALSE(fs::exists(workshop.run() / "test_metrics.json"));
    REQUIRE(tally_command({"train", "--resume", workshop.run()}).exit_code == 0);
    check_as_uninterrupted(workshop.run());
  }
}

TEST_CASE("a run that goes on removes what killed processes left of its writes", "[resume][slow]") {
  const Workshop workshop;
  REQUIRE(stop_early(workshop, SIGTERM).exit_code == 128 + SIGTERM);
  const fs::path run = workshop.run(), checkpoints = run / "checkpoints";
  const auto write = [](const fs::path& path) { std::ofstream(path) << "half"; };
  // No process has so large an id. Nothing that this resume writes has these names.
  write(run / ".tmp-config.resolved.json-4194305-1-0");
  write(run / ".tmp-environment.json-4194305-17-3");
  for (const char* name : {".tmp-best-4194305-1-0", ".tmp-older-4194305-1-0"}) {
    fs::create_directory(checkpoints / name);
    write(checkpoints / name / "model.safetensors");
  }
  // Those of a running process, and what is nobody's temporary, stay.
  const fs::path running = run / ".tmp-data.csv-1-1-0", mine = run / ".tmp-notes-of-mine";
  write(running), write(mine);
  const CommandResult result = tally_command({"train", "--resume", run});
  INFO(result.error);
  REQUIRE(result.exit_code == 0);
  CHECK(fs::remove(running));
  CHECK(fs::remove(mine));
  CHECK(leftovers(run) == 0);
  check_as_uninterrupted(run);
}

TEST_CASE("a run without room for its checkpoint keeps the last one and goes on later", "[resume][slow]") {
  const Workshop workshop;
  REQUIRE(stop_early(workshop, SIGTERM).exit_code == 128 + SIGTERM);
  const fs::path last = workshop.run() / "checkpoints/last";
  const std::string weights = read_file(last / "model.safetensors"), state = read_file(last / "optimizer.safetensors");
  // Blocks of 512 bytes: logs fit, weights do not.
  REQUIRE(weights.size() > 16 * 512);
  const CommandResult result = run_command("/bin/sh", {"-c", "ulimit -f 16; exec \"$@\"", "sh", TALLY_COMMAND, "train",
                                                       "--resume", workshop.run().string()});
  check_refused(result, 1, {"checkpoints/", "File too large"});
  CHECK(read_file(last / "model.safetensors") == weights);
  CHECK(read_file(last / "optimizer.safetensors") == state);
  CHECK(leftovers(workshop.run()) == 0);
  REQUIRE(tally_command({"train", "--resume", workshop.run()}).exit_code == 0);
  check_as_uninterrupted(workshop.run());
}

}  // namespace resume_test
