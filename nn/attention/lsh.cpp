#include "tally/nn/attention/lsh.h"

#include "tally/nn/initializers.h"
#include "tally/ops/attention/lsh_attention.h"

namespace tally::nn {

LshCore LshCore::make(const LshOptions& options, const AttentionSettings& settings, RngKey key) {
  check<ValueError>(options.buckets >= 2 && options.buckets % 2 == 0 && options.rounds >= 1 && options.block >= 1,
                    "lsh attention", "needs an even number of buckets, a round and a row in a chunk; got ",
                    options.buckets, ", ", options.rounds, " and ", options.block);
  const Shape shape{options.rounds, options.buckets / 2, settings.width / settings.heads};
  return {.heads = settings.heads,
          .mask = settings.mask,
          .chunk = options.block,
          .directions = Buffer(normal(shape, 1, key))};
}

Var LshCore::operator()(const Var& q, const Var&, const Var& v, const Sequence& sequence, const Context&) const {
  // In the type of the rows: checks run in f64.
  return ops::lsh_attention(q, v, Var(directions.value().to(q.dtype())), sequence.offsets,
                            {.heads = heads, .mask = mask, .chunk = chunk});
}

std::string LshCore::layout() const {
  return " of " + std::to_string(heads) + " heads, chunks of " + std::to_string(chunk) + " rows";
}

}  // namespace tally::nn
