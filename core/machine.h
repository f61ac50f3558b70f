#pragma once

namespace tally {

/// Rate of single-precision matrix products on all threads, in operations per second, measured now with products that
/// fit the cache (takes about `seconds`). What training speed is compared with.
double measure_sgemm_rate(double seconds = 0.2);

}  // namespace tally
