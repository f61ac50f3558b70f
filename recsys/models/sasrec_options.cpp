#include "tally/recsys/models/sasrec_options.h"

#include <algorithm>
#include <iterator>

namespace tally::recsys {

void SasRecOptions::check(const std::string& section) const { check_heads(*this, section); }

nn::AttentionKinds causal_attentions(const nn::AttentionKinds& kinds) {
  std::vector<nn::AttentionRow> rows;
  std::copy_if(kinds.begin(), kinds.end(), std::back_inserter(rows),
               [](const nn::AttentionRow& row) { return row.causal; });
  return {kinds.of(), std::move(rows)};
}

}  // namespace tally::recsys
