#include "tally/core/simd.h"

#include <hwy/highway.h>
#include <hwy/targets.h>

#include <algorithm>

#include "tally/core/error.h"

namespace tally {

std::vector<std::string> simd_targets() {
  // Asked once, before anything can have been forced.
  static const std::vector<std::string> names = [] {
    std::vector<std::string> found;
    for (const auto target : hwy::SupportedAndGeneratedTargets()) found.emplace_back(hwy::TargetName(target));
    return found;
  }();
  return names;
}

namespace {
std::string& forced_target() {
  static std::string name;
  return name;
}
}  // namespace

std::string simd_target() { return forced_target().empty() ? simd_targets().front() : forced_target(); }

void set_simd_target(const std::string& name) {
  simd_targets();
  hwy::SetSupportedTargetsForTest(0);
  if (!name.empty()) {
    const auto targets = hwy::SupportedAndGeneratedTargets();
    const auto found = std::find_if(targets.begin(), targets.end(), [&](auto t) { return name == hwy::TargetName(t); });
    check<ValueError>(found != targets.end(), "set_simd_target", "no SIMD target '", name, "' on this machine");
    hwy::SetSupportedTargetsForTest(*found);
  }
  // The dispatch tables look again at the next call.
  hwy::GetChosenTarget().DeInit();
  forced_target() = name;
}

}  // namespace tally
