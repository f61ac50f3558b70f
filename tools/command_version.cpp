#include "tally/core/blas.h"
#include "tally/core/parallel.h"
#include "tally/core/simd.h"
#include "tally/core/version.h"
#include "tools/commands.h"
#include "tools/print.h"

namespace tally::tools {
namespace {

std::string describe_build() {
  std::string targets;
  for (const std::string& target : simd_targets()) targets += (targets.empty() ? "" : " ") + target;
  const std::string warning = blas::fallback_warning();
  return "tally " + version_description() + "\nBLAS     " + blas::description() + "\nSIMD     " + simd_target() +
         " (of " + targets + ")\nthreads  " + std::to_string(num_threads()) + (warning.empty() ? "" : '\n' + warning);
}

}  // namespace

void add_version(CLI::App& app, const CommandContext&) {
  app.set_version_flag("--version", describe_build, "Print version, BLAS, SIMD target and threads");
  app.add_subcommand("version", "Print version, BLAS, SIMD target and threads")->callback([] {
    print(detail::join(describe_build(), '\n'));
  });
}

}  // namespace tally::tools
