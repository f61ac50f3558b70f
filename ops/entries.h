#pragma once

// Each source of ops adds its catalog entries through one of these; catalog.cpp calls them all. Registration by static
// objects would vanish from a static library.

#include "tally/ops/catalog.h"

namespace tally::ops::entries {

void add_binary_cross_entropy(Catalog& catalog);
void add_causal_dispatcher_attention(Catalog& catalog);
void add_commitment_loss(Catalog& catalog);
void add_decayed_sum(Catalog& catalog);
void add_decode_codes(Catalog& catalog);
void add_dispatcher_attention(Catalog& catalog);
void add_dropout(Catalog& catalog);
void add_elementwise_binary(Catalog& catalog);
void add_elementwise_unary(Catalog& catalog);
void add_embedding(Catalog& catalog);
void add_embedding_bag(Catalog& catalog);
void add_histogram_attention(Catalog& catalog);
void add_gru(Catalog& catalog);
void add_item_cross_entropy(Catalog& catalog);
void add_layer_norm(Catalog& catalog);
void add_linear(Catalog& catalog);
void add_linear_attention(Catalog& catalog);
void add_linformer_attention(Catalog& catalog);
void add_lsh_attention(Catalog& catalog);
void add_matmul(Catalog& catalog);
void add_product_key_memory(Catalog& catalog);
void add_product_keys(Catalog& catalog);
void add_residual_dropout_norm(Catalog& catalog);
void add_rms_norm(Catalog& catalog);
void add_reduce(Catalog& catalog);
void add_softmax(Catalog& catalog);
void add_softmax_attention(Catalog& catalog);
void add_softmax_attention_materialized(Catalog& catalog);
void add_sampled_softmax(Catalog& catalog);
void add_shape(Catalog& catalog);
void add_sinkhorn_attention(Catalog& catalog);
void add_vector_quantization(Catalog& catalog);

}  // namespace tally::ops::entries
