#pragma once

#include <stdexcept>

#include "tally/core/io/file.h"
#include "tests/support/temporary_directory.h"

namespace tally::fuzz {

/// A directory for the files of all calls, one after the other.
inline const test::TemporaryDirectory& scratch() {
  static const test::TemporaryDirectory directory;
  return directory;
}

/// What is not so is a finding.
inline void require(bool holds, const char* what) {
  if (!holds) throw std::logic_error(what);
}

/// The library's own errors are an answer.
template <class Action>
void answered(Action&& action) {
  try {
    action();
  } catch (const Error&) {
    return;
  }
}

}  // namespace tally::fuzz
