#include "tally/nn/attention/lsh.h"

#include "tally/ops/attention/lsh_attention.h"

namespace tally::nn {

Var LshCore::operator()(const Var& q, const Var&, const Var& v, const Sequence& sequence, const Context&) const {
  // In the type of the rows: checks run in f64.
  return ops::lsh_attention(q, v, Var(directions.value().to(q.dtype())), sequence.offsets,
                            {.heads = heads, .mask = mask, .chunk = chunk});
}

std::string LshCore::layout() const {
  return " of " + std::to_string(heads) + " heads, chunks of " + std::to_string(chunk) + " rows";
}

}  // namespace tally::nn
