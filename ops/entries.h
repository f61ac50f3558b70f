#pragma once

#include "tally/ops/catalog.h"

/// The sources of the standard catalog, in the order of their entries: a new one is a line here. (Registration by
/// static objects would vanish from a static library.)
#define TALLY_OP_ENTRIES(EACH)         \
  EACH(binary_cross_entropy)           \
  EACH(causal_conv1d)                  \
  EACH(causal_dispatcher_attention)    \
  EACH(causal_lookup)                  \
  EACH(cross_entropy)                  \
  EACH(decayed_sum)                    \
  EACH(decode_codes)                   \
  EACH(dispatcher_attention)           \
  EACH(dropout)                        \
  EACH(elementwise_binary)             \
  EACH(elementwise_unary)              \
  EACH(embedding)                      \
  EACH(embedding_bag)                  \
  EACH(feature_map)                    \
  EACH(histogram_attention)            \
  EACH(gru)                            \
  EACH(index)                          \
  EACH(item_cross_entropy)             \
  EACH(last_rows)                      \
  EACH(layer_norm)                     \
  EACH(linear)                         \
  EACH(linear_attention)               \
  EACH(linformer_attention)            \
  EACH(local_mixing)                   \
  EACH(lsh_attention)                  \
  EACH(lstm)                           \
  EACH(matmul)                         \
  EACH(normalized_linear_attention)    \
  EACH(outer_sums)                     \
  EACH(pointwise_attention)            \
  EACH(position_softmax_attention)     \
  EACH(product_key_memory)             \
  EACH(product_keys)                   \
  EACH(residual_dropout_norm)          \
  EACH(rms_norm)                       \
  EACH(reduce)                         \
  EACH(rotary)                         \
  EACH(softmax)                        \
  EACH(softmax_attention)              \
  EACH(softmax_attention_materialized) \
  EACH(softmax_lookup)                 \
  EACH(sampled_softmax)                \
  EACH(scaled_dot_product_attention)   \
  EACH(segments)                       \
  EACH(shape)                          \
  EACH(sinkhorn_attention)             \
  EACH(symmetric_lookup)               \
  EACH(vector_quantization)

namespace tally::ops::entries {

// add_NAME() stands at the end of its op's source and adds that op, or a family of them.
#define TALLY_DECLARE(name) void add_##name(Catalog& catalog);
TALLY_OP_ENTRIES(TALLY_DECLARE)
#undef TALLY_DECLARE

}  // namespace tally::ops::entries
