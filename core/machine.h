#pragma once

#include <string>

namespace tally {

/// Rate of single-precision matrix products on all threads, in operations per second, measured now with products that
/// fit the cache (takes about `seconds`). What training speed is compared with.
double measure_sgemm_rate(double seconds = 0.2);

/// Version of the library, e.g. "0.1.0".
std::string version();

/// Compiler and build type this library was made with.
std::string build_description();

}  // namespace tally
