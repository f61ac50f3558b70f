#include "tally/nn/attention/linformer.h"

#include "tally/ops/attention/linformer_attention.h"

namespace tally::nn {

Var LinformerCore::operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence,
                              const Context&) const {
  return ops::linformer_attention(q, k, v, key_projection, value_projection, sequence.offsets, {.heads = heads});
}

std::string LinformerCore::layout() const { return " of " + std::to_string(heads) + " heads"; }

}  // namespace tally::nn
