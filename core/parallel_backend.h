#pragma once

// Between parallel.cpp and the thread backend the build chose (TALLY_PARALLEL): not for other users.

#include <cstdint>

#include "tally/core/parallel.h"

namespace tally::detail {

bool& inside_parallel_region();
int default_num_threads();

/// Calls `body(b, b + 1)` once for every b in [0, blocks), on up to num_threads() threads, the calling one included.
void run_blocks(std::int64_t blocks, BlockBody body);

}  // namespace tally::detail
