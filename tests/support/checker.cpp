// `checker check [OP...]`: the commands over the standard catalog, with the tests' naive references in its entries.
#include "tally/tools/op_commands.h"
#include "tests/ops/references.h"

int main(int argc, char** argv) {
  tally::ops::Catalog catalog;
  for (tally::ops::OpEntry entry : tally::ops::standard_catalog().entries()) {
    const auto found = tally::testing::all_references().find(entry.name);
    if (found != tally::testing::all_references().end()) entry.reference = found->second;
    entry.variations = nullptr;  // its samples are among the entry's already
    catalog.add(std::move(entry));
  }
  return tally::tools::op_commands(catalog, argc, argv);
}
