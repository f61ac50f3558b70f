#pragma once

#include <string>

#include "tally/recsys/record/run_record.h"

namespace tally::recsys {

/// A page about one run, from what its directory holds: curves, metrics beside the baselines, breakdown by history
/// length, ranks, recommendations, config, data and environment. It needs no network and no script, follows the
/// reader's light or dark preference, and is well-formed XML. What a run lacks is left out, or said to be missing.
std::string report_html(const RunRecord& record);

/// Reads a run directory, finished or not, and writes the page about it, its report.html as a rule. Throws IoError.
void write_report(const RunDirectory& directory, const std::filesystem::path& page);

}  // namespace tally::recsys
