#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tally/ops/catalog.h"

namespace tally::testing {

/// A naive implementation in double, written from the definition with plain loops and nothing of the op's own code.
using Reference = std::function<std::vector<Tensor>(std::span<const Tensor> inputs, const ops::OpOptions& options)>;
using References = std::map<std::string, Reference>;

/// One function per test file of references; all_references() calls them all.
void add_binary_cross_entropy_references(References& references);
void add_chosen_keys_references(References& references);
void add_decayed_sum_references(References& references);
void add_dispatcher_attention_references(References& references);
void add_dropout_references(References& references);
void add_elementwise_references(References& references);
void add_embedding_references(References& references);
void add_histogram_attention_references(References& references);
void add_gru_references(References& references);
void add_item_cross_entropy_references(References& references);
void add_linear_attention_references(References& references);
void add_linear_references(References& references);
void add_matmul_references(References& references);
void add_memory_references(References& references);
void add_norm_references(References& references);
void add_reduce_references(References& references);
void add_softmax_attention_references(References& references);
void add_softmax_references(References& references);
void add_sampled_softmax_references(References& references);
void add_shape_references(References& references);
void add_vector_quantization_references(References& references);

const References& all_references();

}  // namespace tally::testing
