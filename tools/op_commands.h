#pragma once

#include "tally/ops/catalog.h"

namespace tally::tools {

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
