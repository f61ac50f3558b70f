#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tally/ops/catalog.h"

/// One function for each file of references, add_NAME_references(): a new one is a line here.
#define TALLY_REFERENCES(EACH)      \
  EACH(binary_cross_entropy)        \
  EACH(chosen_keys)                 \
  EACH(convolution)                 \
  EACH(cross_entropy)               \
  EACH(decayed_sum)                 \
  EACH(dispatcher_attention)        \
  EACH(dropout)                     \
  EACH(elementwise)                 \
  EACH(embedding)                   \
  EACH(feature_map)                 \
  EACH(gru)                         \
  EACH(histogram_attention)         \
  EACH(item_cross_entropy)          \
  EACH(linear)                      \
  EACH(linear_attention)            \
  EACH(local_mixing)                \
  EACH(lookup)                      \
  EACH(lstm)                        \
  EACH(matmul)                      \
  EACH(memory)                      \
  EACH(norm)                        \
  EACH(normalized_linear_attention) \
  EACH(pointwise_attention)         \
  EACH(position_softmax)            \
  EACH(reduce)                      \
  EACH(rotary)                      \
  EACH(sampled_softmax)             \
  EACH(scaled_dot_product)          \
  EACH(segments)                    \
  EACH(shape)                       \
  EACH(softmax)                     \
  EACH(softmax_attention)           \
  EACH(vector_quantization)

namespace tally::testing {

/// A naive implementation in double, written from the definition with plain loops and nothing of the op's own code.
using Reference = std::function<std::vector<Tensor>(std::span<const Tensor> inputs, const ops::OpOptions& options)>;
using References = std::map<std::string, Reference>;

#define TALLY_DECLARE(name) void add_##name##_references(References& references);
TALLY_REFERENCES(TALLY_DECLARE)
#undef TALLY_DECLARE

const References& all_references();

}  // namespace tally::testing
