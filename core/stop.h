#pragma once

#include <functional>
#include <string_view>

#include "tally/core/error.h"

namespace tally {

/// Asked on the way by work that may take long: whether it should end now. Empty: never.
using StopRequested = std::function<bool()>;

/// Throws Stopped when it should.
inline void check_stop(const StopRequested& requested, std::string_view where) {
  if (requested && requested()) fail<Stopped>(where, "was asked to stop");
}

}  // namespace tally
