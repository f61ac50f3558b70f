#include "tally/nn/attention/linformer.h"

#include <cmath>

#include "tally/nn/initializers.h"
#include "tally/ops/attention/linformer_attention.h"

namespace tally::nn {

LinformerCore LinformerCore::make(const LinformerOptions& options, const AttentionSettings& settings, RngKey key) {
  check<ValueError>(settings.max_length >= 1 && options.projected_keys >= 1, "linformer attention",
                    "needs to know the longest sequence, and a projected key; got ", settings.max_length, " and ",
                    options.projected_keys);
  const Shape shape{options.projected_keys, settings.max_length};
  const double deviation = std::sqrt(1.0 / static_cast<double>(options.projected_keys));
  return {.heads = settings.heads,
          .key_projection = Parameter(normal(shape, deviation, key.fold_in("keys"))),
          .value_projection = Parameter(normal(shape, deviation, key.fold_in("values")))};
}

Var LinformerCore::operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence,
                              const Context&) const {
  return ops::linformer_attention(q, k, v, key_projection, value_projection, sequence.offsets, {.heads = heads});
}

std::string LinformerCore::layout() const { return " of " + std::to_string(heads) + " heads"; }

}  // namespace tally::nn
