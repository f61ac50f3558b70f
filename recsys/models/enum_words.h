#pragma once

#include <string>
#include <vector>

#include "tally/nn/enum_words.h"
#include "tally/recsys/models/window.h"

namespace tally::recsys {

/// As nn/enum_words.h has them.
inline const std::vector<std::string>& words_of(PositionAlignment) {
  static const std::vector<std::string> words{"start", "end"};
  return words;
}

static_assert(static_cast<int>(PositionAlignment::start) == 0 && static_cast<int>(PositionAlignment::end) == 1);

using nn::word_of;
using nn::words_of;

}  // namespace tally::recsys
