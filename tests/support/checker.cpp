// `checker OP...`: the contract of ops of the standard catalog, with the tests' naive references, up to the first thing
// that breaks it; then the tests of what no entry calls (recurrent forms, helpers) or no small sample reaches. Returns
// 1 when something is wrong. What tools/mutants.sh runs: it links no room above ops, so that little is built.
#define CATCH_CONFIG_RUNNER
#define CATCH_CONFIG_NO_POSIX_SIGNALS  // a mutant that spoils the heap would hang in the handler
#include <catch2/catch.hpp>
#include <iostream>
#include <iterator>

#include "tally/ops/entry_checks.h"
#include "tests/ops/references.h"

namespace {

using namespace tally::ops;

/// The first thing that is wrong with the op, or nothing. Throws what the op throws.
std::string complaint_about(const OpEntry& entry) {
  for (const OpSample& sample : entry.samples()) {
    for (const SampleCheck& each : sample_checks()) {
      if (each.needs_gradient && !sample.gradient) continue;
      OpSample own = sample;  // an op that overwrites its inputs must not spoil the next check
      for (tally::Tensor& input : own.inputs) input = input.defined() ? input.clone() : input;
      const Complaints complaints = each.check(entry, own);
      if (!complaints.empty()) return std::string(each.name) + ": " + describe(sample) + ": " + complaints[0];
    }
  }
  for (const OpError& error : entry.errors ? entry.errors() : std::vector<OpError>{}) {
    const Complaints complaints = check_error(entry, error);
    if (!complaints.empty()) return "error: " + error.name + ": " + complaints[0];
  }
  const EntryVerdict verdict = check_entry(entry).verdict;
  return verdict == EntryVerdict::pass || verdict == EntryVerdict::skip ? "" : "gradient";
}

/// Do the linked tests of any of these tags pass?
bool tests_pass(const std::string& tags) {
  const char* arguments[] = {"checker", tags.c_str(), "--abort"};
  Catch::Session session;
  return session.applyCommandLine(static_cast<int>(std::size(arguments)), arguments) == 0 && session.run() == 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::string tags;
  for (int i = 1; i < argc; ++i) {
    OpEntry entry = standard_catalog().find(argv[i]);
    const auto found = tally::testing::all_references().find(entry.name);
    if (found != tally::testing::all_references().end()) entry.reference = found->second;
    std::string complaint;
    try {
      complaint = complaint_about(entry);
    } catch (const std::exception& error) {
      complaint = std::string("it throws: ") + error.what();
    }
    tags += (tags.empty() ? "[" : ",[") + entry.name + "]~[slow]";
    if (complaint.empty()) continue;
    std::cout << entry.name << ": " << complaint << '\n';
    return 1;
  }
  return tests_pass(tags) ? 0 : 1;
}
