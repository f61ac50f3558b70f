#pragma once

#include <string>

namespace tally {

/// Version of the library, "0.1.0".
std::string version();
/// The commit it was built from, with "-dirty" when files differed from it; "unknown" outside of a repository.
std::string revision();
/// Both, and the compiler: "0.1.0 (1a2b3c4d5e6f, GCC 12.2.0)".
std::string version_description();

}  // namespace tally
