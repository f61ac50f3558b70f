#include <fmt/format.h>

#include <iostream>

#include "tally/ops/entry_checks.h"
#include "tools/commands.h"
#include "tools/gradient_report.h"
#include "tools/print.h"

namespace tally::tools {
namespace {

using ops::EntryFindings;
using ops::Finding;

void print_all(const char* kind, const std::vector<Finding>& findings) {
  for (const Finding& each : findings) {
    print(detail::join("  ", kind, " [", each.check, "] ", (each.sample.empty() ? "" : each.sample + ": "),
                       each.complaint, '\n'));
  }
}

int check_ops(const std::vector<const ops::OpEntry*>& chosen, bool strict) {
  print(fmt::format("{:<32} samples   checks findings     gaps\n", "op"));
  std::int64_t failed = 0, gaps = 0;
  for (const ops::OpEntry* entry : chosen) {
    const EntryFindings found = ops::check_all(*entry);
    print(fmt::format("{:<32} {:>7} {:>8} {:>8} {:>8}  {}\n", found.op, found.samples, found.checks,
                      found.findings.size(), found.gaps.size(), found.failed() ? "FAIL" : "OK"));
    print_all("finding", found.findings);
    print_all("gap", found.gaps);
    if (found.gradients_failed()) print_gradient_report(std::cout, found.gradients, false);
    failed += found.failed() || (strict && !found.gaps.empty());
    gaps += static_cast<std::int64_t>(found.gaps.size());
    flush_printed();
  }
  print(fmt::format("\n{} passed, {} failed, {} gaps in samples and documentation\n",
                    static_cast<std::int64_t>(chosen.size()) - failed, failed, gaps));
  return failed > 0 ? 1 : 0;
}

}  // namespace

void add_check(CLI::App& app, const CommandContext& context) {
  struct CheckArguments {
    std::vector<std::string> ops;
    bool strict = false;
  };
  auto arguments = std::make_shared<CheckArguments>();
  CLI::App* command = app.add_subcommand(
      "check",
      "Hold ops to the whole contract: gradients, f32 against f64 on each SIMD target, tracking, cotangents, buffers, "
      "versions, views, leaks, threads, errors, and a reference where an entry has one. Exit code 1 when one fails");
  command->add_option("op", arguments->ops, "Ops to check; all without");
  command->add_flag("--strict", arguments->strict, "A gap fails too: what no sample checks, or the entry does not say");
  command->callback([arguments, context] {
    context.exit_code =
        check_ops(chosen_ops(context.catalog, arguments->ops, arguments->ops.empty()), arguments->strict);
  });
}

}  // namespace tally::tools
