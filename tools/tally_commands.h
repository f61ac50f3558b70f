#pragma once

#include "tally/ops/catalog.h"
#include "tally/recsys/config/tables.h"

namespace tally::tools {

/// All commands of `tally` over tables and a catalog of one's own. A program with a model of its own:
///
///     int main(int argc, char** argv) {
///       recsys::Tables tables = recsys::standard();
///       tables.models.add(recsys::model_row<MyModel>("mine", "what it is", MyOptions{}));
///       return tally::tools::tally_commands(tables, ops::standard_catalog(), argc, argv);
///     }
///
/// Returns the exit code: 0 for success, 1 for a failure, 2 for a wrong command line or config, 3 for an inconclusive
/// gradient check. Errors are one sentence on the error stream.
int tally_commands(const recsys::Tables& tables, const ops::Catalog& catalog, int argc, const char* const* argv);

}  // namespace tally::tools
