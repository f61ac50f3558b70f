#pragma once

#include <iosfwd>
#include <vector>

#include "tally/core/io/json.h"
#include "tally/ops/check.h"

/// Text, JSON and exit code of gradient checks, of ops and of whole models alike.
namespace tally::tools {

/// What every number below was measured with: tolerances, steps, seed, threads, denormals, BLAS, SIMD, version.
void print_gradient_header(std::ostream& out, const GradientCheckOptions& options);

/// One line for each input: the worst over the samples, or one for each sample too when `every_sample`. Failures are
/// followed by their worst elements and the pattern recognised.
void print_gradient_report(std::ostream& out, const ops::EntryReport& report, bool every_sample);

/// "N passed, N failed, N skipped", with the inconclusive ones named too when there are any.
std::string summarise(const std::vector<ops::EntryReport>& reports);

/// 0 when all passed or were skipped, 1 when one failed, 3 when none failed but one was inconclusive.
int exit_code_of(const std::vector<ops::EntryReport>& reports);

Json to_json(const std::vector<ops::EntryReport>& reports, const GradientCheckOptions& options);

}  // namespace tally::tools
