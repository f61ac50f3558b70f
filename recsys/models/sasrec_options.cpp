#include "tally/recsys/models/sasrec_options.h"

namespace tally::recsys {

void SasRecOptions::check(const std::string& section) const {
  tally::check<ConfigError>(width % heads == 0, section + ".hidden_size", "needs a multiple of n_heads ", heads,
                            "; got ", width);
}

const std::vector<std::string>& SasRecOptions::causal_attentions() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> causal;
    for (const nn::AttentionKindEntry& entry : nn::attention_kinds()) {
      if (entry.causal) causal.push_back(entry.name);
    }
    return causal;
  }();
  return names;
}

}  // namespace tally::recsys
