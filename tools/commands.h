#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "tally/ops/catalog.h"
#include "tally/recsys/config/tables.h"

/// One function for each command of `tally`: it adds a subcommand whose callback does the work and may set the exit
/// code. The catalog and the exit code must outlive the app. Callbacks report errors by throwing. `tables`: what
/// configs may name; a program adds rows of its own.
namespace tally::tools {

void add_train(CLI::App& app, int& exit_code, const recsys::Tables& tables);
void add_evaluate(CLI::App& app, int& exit_code, const recsys::Tables& tables);
void add_recommend(CLI::App& app, int& exit_code, const recsys::Tables& tables);
void add_report(CLI::App& app, int& exit_code, const recsys::Tables& tables);
void add_study(CLI::App& app, int& exit_code, const recsys::Tables& tables);
void add_config(CLI::App& app, int& exit_code, const recsys::Tables& tables);
void add_data(CLI::App& app, int& exit_code, const recsys::Tables& tables);
void add_compress(CLI::App& app, int& exit_code, const recsys::Tables& tables);
void add_embed(CLI::App& app, int& exit_code, const recsys::Tables& tables);
void add_similar(CLI::App& app, int& exit_code, const recsys::Tables& tables);
/// `models`, `losses` and so on: the rows of each table.
void add_tables(CLI::App& app, int& exit_code, const recsys::Tables& tables);

void add_gradcheck(CLI::App& app, const ops::Catalog& catalog, int& exit_code, const recsys::Tables& tables);
void add_check(CLI::App& app, const ops::Catalog& catalog, int& exit_code);
void add_ops(CLI::App& app, const ops::Catalog& catalog);
void add_apply(CLI::App& app, const ops::Catalog& catalog);
void add_bench(CLI::App& app, const ops::Catalog& catalog);
/// `bench lengths`; after add_bench.
void add_bench_lengths(CLI::App& app, const recsys::Tables& tables);
/// `bench sessions`; after add_bench.
void add_bench_sessions(CLI::App& app, const recsys::Tables& tables);
/// `bench reading`; after add_bench.
void add_bench_reading(CLI::App& app);
/// The command `version` and the flag --version.
void add_version(CLI::App& app);

/// All that need no recommender: the ones of op_commands.h.
void add_op_commands(CLI::App& app, const ops::Catalog& catalog, int& exit_code, const recsys::Tables& tables);

/// Parses the command line, runs the command and returns the exit code: what the command set, or 2 for a wrong command
/// line or configuration (ConfigError), or 1 for any other exception. Errors are one sentence on the error stream.
int run_commands(CLI::App& app, int argc, const char* const* argv, const int& exit_code);

/// `--key=value` words that CLI11 did not take, without their dashes. Throws ConfigError for other words.
std::vector<std::string> overrides_of(const CLI::App& command);

/// The ops named, or all of them when `all`. Throws ConfigError for an unknown one, and when none is asked for.
std::vector<const ops::OpEntry*> chosen_ops(const ops::Catalog& catalog, const std::vector<std::string>& names,
                                            bool all);

}  // namespace tally::tools
