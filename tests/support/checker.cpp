// `checker OP...`: the contract of ops of the standard catalog, with the tests' naive references. Returns 1 when one
// breaks it. What tools/mutants.sh runs: it links no room above ops, so that little is built.
#include <iostream>

#include "tally/ops/entry_checks.h"
#include "tests/ops/references.h"

int main(int argc, char** argv) {
  using namespace tally::ops;
  for (int i = 1; i < argc; ++i) {
    OpEntry entry = standard_catalog().find(argv[i]);
    const auto found = tally::testing::all_references().find(entry.name);
    if (found != tally::testing::all_references().end()) entry.reference = found->second;
    const EntryFindings result = check_all(entry);
    for (const Finding& each : result.findings) {
      std::cout << entry.name << " [" << each.check << "] " << each.sample << ": " << each.complaint << '\n';
    }
    if (result.gradients_failed()) std::cout << entry.name << " [gradient]\n";
    if (result.failed()) return 1;
  }
  return 0;
}
