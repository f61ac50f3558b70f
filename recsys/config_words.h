#pragma once

#include <map>
#include <string>

#include "tally/core/error.h"

namespace tally::recsys {

/// The value that a config's word stands for. parse_config has checked the word; `section` is for the message of a
/// config that was made otherwise.
template <class T>
T look_up(const char* section, const std::map<std::string, T>& names, const std::string& word) {
  const auto found = names.find(word);
  check<ConfigError>(found != names.end(), section, "knows no '", word, "'");
  return found->second;
}

}  // namespace tally::recsys
