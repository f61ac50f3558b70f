#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "tally/core/io/json.h"
#include "tests/support/run_command.h"

// A data set and a model so small that a run of `tally train` takes about a second.

namespace tally::test {

constexpr int kUsers = 60;
constexpr int kItems = 40;
constexpr int kEpochs = 6;

/// ratings.csv of walks over a ring of items: what comes next follows from what came last, mostly.
std::string walks_csv();
/// movies.csv: item 3 is called "Film, number 3".
std::string titles_csv();

/// A directory with data, titles and a config of its own; runs go into runs/.
class Workshop {
 public:
  Workshop();

  const TemporaryDirectory& files() const { return files_; }
  std::filesystem::path data() const { return files_ / "ratings.csv"; }
  std::filesystem::path config() const { return files_ / "config.json"; }
  std::filesystem::path output() const { return files_ / "runs"; }
  /// The arguments of `tally train` here, with overrides behind.
  std::vector<std::string> train_arguments(std::initializer_list<std::string> overrides = {}) const;
  CommandResult train(std::initializer_list<std::string> overrides = {}) const;
  /// The only run here; empty when there is none.
  std::filesystem::path run() const;

 private:
  TemporaryDirectory files_;
};

CommandResult tally_command(const std::vector<std::string>& arguments);
/// What a command says on standard output; it must succeed.
std::string said(const std::vector<std::string>& arguments);

std::vector<std::string> lines_of(const std::string& text);
/// The cells of a named column of a table of tabs, with a space between them.
std::string column(const std::string& table, const std::string& name);

/// A run that nothing interrupted, trained once for all tests. Not to be written to.
const Workshop& finished();

/// The files that must not depend on threads, kills and resumes, by name: weights and optimizer state.
std::map<std::string, std::string> trained_files(const std::filesystem::path& run);
/// test_metrics.json and metrics.jsonl without what depends on time and machine.
std::vector<std::string> logged(const std::filesystem::path& run);

/// Holds what a run trained and logged against finished().
void check_as_uninterrupted(const std::filesystem::path& run);
/// Files below a directory whose names begin with a dot: temporaries and locks.
std::size_t leftovers(const std::filesystem::path& directory);

/// Requires exit code and exactly one line on the error stream: `tally: [where] sentence`, holding all `parts`.
void check_refused(const CommandResult& result, int exit_code, std::initializer_list<std::string> parts);

}  // namespace tally::test
