#pragma once

#include <catch2/catch.hpp>
#include <string>

#include "tally/core/simd.h"

namespace tally::test {

/// Runs body once on each SIMD target of this machine.
template <class Body>
void on_each_target(Body&& body) {
  for (const std::string& target : simd_targets()) {
    CAPTURE(target);
    set_simd_target(target);
    CHECK(simd_target() == target);
    body();
  }
  set_simd_target("");
}

}  // namespace tally::test
