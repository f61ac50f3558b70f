#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tally/nn/attention/attention_kinds.h"

namespace tally {

/// An attention of the table with those of the options that it has.
inline nn::AttentionChoice attention_choice(const nn::AttentionKinds& kinds, const std::string& name,
                                            const std::vector<std::pair<std::string, Json>>& options) {
  nn::AttentionChoice choice(kinds, name);
  for (const auto& [key, value] : options) {
    if (choice.options.list().find(key) == nullptr) continue;
    set_option([&choice] { return choice.options.list(); }, name, key, value);
  }
  return choice;
}

}  // namespace tally
