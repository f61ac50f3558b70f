#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "tally/ops/catalog.h"
#include "tally/recsys/config/tables.h"

/// The commands over a catalog of ops, in the order of --help: a new one is a line here and add_NAME() in a source of
/// its own.
#define TALLY_OP_COMMANDS(EACH) \
  EACH(ops)                     \
  EACH(gradcheck)               \
  EACH(check)                   \
  EACH(apply)                   \
  EACH(bench)                   \
  EACH(version)

/// Those over the tables too. Commands of `bench` come after it.
#define TALLY_COMMANDS(EACH) \
  EACH(train)                \
  EACH(evaluate)             \
  EACH(recommend)            \
  EACH(report)               \
  EACH(experts)              \
  EACH(study)                \
  EACH(config)               \
  EACH(tables)               \
  EACH(data)                 \
  EACH(compress)             \
  EACH(convert_weights)      \
  EACH(embed)                \
  EACH(similar)              \
  TALLY_OP_COMMANDS(EACH)    \
  EACH(bench_lengths)        \
  EACH(bench_lookups)        \
  EACH(bench_sessions)       \
  EACH(bench_reading)        \
  EACH(bench_products)       \
  EACH(bench_step)

namespace tally::tools {

/// The type name of an option whose text is a list, which may be empty: --history "" has no event.
inline constexpr const char* kListType = "A,B,...";

/// What commands work over, and where they leave the exit code. All of it outlives the app.
struct CommandContext {
  const ops::Catalog& catalog;
  const recsys::Tables& tables;  ///< what configs may name
  int& exit_code;
};

// add_NAME() adds a subcommand whose callback does the work, and reports errors by throwing.
#define TALLY_DECLARE(name) void add_##name(CLI::App& app, const CommandContext& context);
TALLY_COMMANDS(TALLY_DECLARE)
#undef TALLY_DECLARE

/// Adds the commands, parses the command line, runs the command and returns the exit code: what the command set, or 2
/// for a wrong command line or configuration (ConfigError), or 1 for any other exception. Errors are one sentence on
/// the error stream.
int run_commands(CLI::App& app, int argc, const char* const* argv, const int& exit_code,
                 const std::function<void()>& add_all);

/// `--key=value` words that CLI11 did not take, without their dashes. Throws ConfigError for other words.
std::vector<std::string> overrides_of(const CLI::App& command);

/// The ops named, or all of them when `all`. Throws ConfigError for an unknown one, and when none is asked for.
std::vector<const ops::OpEntry*> chosen_ops(const ops::Catalog& catalog, const std::vector<std::string>& names,
                                            bool all);

}  // namespace tally::tools
