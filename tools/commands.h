#pragma once

#include <CLI/CLI.hpp>

namespace tally::tools {

// Each command adds a subcommand whose callback does the work and sets the exit code. Errors are thrown: run() turns
// them into one sentence and a code.

void add_train(CLI::App& app, int& exit_code);
void add_evaluate(CLI::App& app, int& exit_code);
void add_recommend(CLI::App& app, int& exit_code);
void add_version(CLI::App& app, int& exit_code);

/// Parses the command line and runs the subcommand it names. Returns 0, or what the command set; 2 for a wrong command
/// line or configuration, 1 for any other error, each with one sentence on standard error.
int run(CLI::App& app, int argc, const char* const* argv, const int& exit_code);

}  // namespace tally::tools
