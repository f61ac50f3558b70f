#pragma once

#include <cstdint>
#include <filesystem>

namespace tally::nn {

/// Drops what a training that resumes after `step` will log again: the lines of a JSON-lines file whose `step` is
/// above, those torn by a kill, those of a final test (whose `event` is `test`), and with `validates_again` that of the
/// validation at `step`. A file that is not there stays so.
void drop_lines_after_step(const std::filesystem::path& path, std::int64_t step, bool validates_again = false);

}  // namespace tally::nn
