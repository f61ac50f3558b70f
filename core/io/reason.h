#pragma once

#include <string.h>

#include <string>

namespace tally {

/// What an `errno` stands for, "No such file or directory", in no language of the host's choice.
inline std::string reason_of(int error) {
  const char* const text = ::strerrordesc_np(error);
  return text != nullptr ? text : "error " + std::to_string(error);
}

}  // namespace tally
