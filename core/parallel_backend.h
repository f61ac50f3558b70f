#pragma once

// Between parallel.cpp and the thread backend the build chose (TALLY_PARALLEL): not for other users.

#include <cstdint>
#include <string>

#include "tally/core/parallel.h"

namespace tally::detail {

bool& inside_parallel_region();
int default_num_threads();
/// Throws ValueError for a number of threads that set_num_threads() cannot take, and BackendError for one that there is
/// no memory for.
void check_num_threads(int threads);
/// CPUs that a line of cgroup's cpu.max ("150000 100000": microseconds per period) allows, rounded up; 0 for no limit.
int quota_in_cpus(const std::string& cpu_max);

/// Calls `body(b, b + 1)` once for every b in [0, blocks), on up to num_threads() threads, the calling one included.
void run_blocks(std::int64_t blocks, BlockBody body);

}  // namespace tally::detail
