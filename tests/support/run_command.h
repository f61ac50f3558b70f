#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "tally/core/io/file.h"
#include "tests/support/temporary_directory.h"

namespace tally::test {

/// What a program printed and how it ended.
struct CommandResult {
  int exit_code = -1;  ///< 128 + the signal when one ended it
  std::string out, error;
};

/// Runs a program to its end. Arguments are passed as they are: no shell expands them.
inline CommandResult run_command(const std::string& program, const std::vector<std::string>& arguments) {
  const TemporaryDirectory scratch;
  const auto quoted = [](const std::string& word) {
    std::string text = "'";
    for (const char c : word) text += c == '\'' ? "'\\''" : std::string(1, c);
    return text + "'";
  };
  std::string line = quoted(program);
  for (const std::string& argument : arguments) line += " " + quoted(argument);
  const std::string out = scratch / "out", error = scratch / "error";
  const int status = std::system((line + " >" + quoted(out) + " 2>" + quoted(error) + " </dev/null").c_str());
  CommandResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.out = read_file(out);
  result.error = read_file(error);
  return result;
}

}  // namespace tally::test
