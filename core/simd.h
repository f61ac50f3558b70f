#pragma once

#include <string>
#include <vector>

namespace tally {

/// Names of the SIMD targets this binary holds and this CPU can run, best first (e.g. AVX3, AVX2, SSE4, SCALAR).
std::vector<std::string> simd_targets();
/// Name of the target in use.
std::string simd_target();
/// Forces a target of simd_targets(), for tests and comparison; "" returns to the best. Throws ValueError for another
/// name. Not while other threads compute.
void set_simd_target(const std::string& name);

}  // namespace tally
