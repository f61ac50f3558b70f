#include "tally/recsys/models/sasrec_options.h"

#include <algorithm>
#include <iterator>

namespace tally::recsys {

void SasRecOptions::check(const std::string& section) const {
  tally::check<ConfigError>(width % heads == 0, section + ".hidden_size", "needs a multiple of n_heads ", heads,
                            "; got ", width);
}

nn::AttentionKinds causal_attentions(const nn::AttentionKinds& kinds) {
  std::vector<nn::AttentionRow> rows;
  std::copy_if(kinds.begin(), kinds.end(), std::back_inserter(rows),
               [](const nn::AttentionRow& row) { return row.causal; });
  return {kinds.of(), std::move(rows)};
}

}  // namespace tally::recsys
