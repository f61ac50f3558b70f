#pragma once

#include <functional>
#include <string_view>

#include "tally/ops/catalog.h"

namespace tally::tools {

/// What `run` returns, or, when it throws, 2 for a ConfigError and 1 for anything else, with one sentence on the error
/// stream: what a `main` does that makes tables of its own.
int guarded(std::string_view program, const std::function<int()>& run);

/// The commands over a catalog of ops: `check`, `gradcheck`, `ops`, `apply`, `bench` and `version`. A program with ops
/// of its own:
///
///     int main(int argc, char** argv) { return tally::tools::op_commands(my_catalog(), argc, argv); }
///
/// where my_catalog() copies ops::standard_catalog() and adds its entries. Returns the exit code: 0 for success, 1 for
/// a failure, 2 for a wrong command line, 3 for an inconclusive gradient check. Errors are one sentence on the error
/// stream.
int op_commands(const ops::Catalog& catalog, int argc, const char* const* argv);

}  // namespace tally::tools
