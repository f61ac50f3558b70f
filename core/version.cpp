#include "tally/core/version.h"

namespace tally {

std::string version() { return TALLY_VERSION; }

// revision() stands in a source that the build writes (cmake/TallyRevision.cmake).

std::string version_description() {
#if defined(__clang__)
  const std::string compiler = "Clang " __clang_version__;
#else
  const std::string compiler = "GCC " __VERSION__;
#endif
  return version() + " (" + revision() + ", " + compiler.substr(0, compiler.find(" (")) + ")";
}

}  // namespace tally
