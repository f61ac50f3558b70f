#include "tests/ops/references.h"

namespace tally::testing {

const References& all_references() {
  static const References references = [] {
    References all;
    add_binary_cross_entropy_references(all);
    add_chosen_keys_references(all);
    add_decayed_sum_references(all);
    add_dispatcher_attention_references(all);
    add_dropout_references(all);
    add_elementwise_references(all);
    add_embedding_references(all);
    add_histogram_attention_references(all);
    add_gru_references(all);
    add_item_cross_entropy_references(all);
    add_linear_attention_references(all);
    add_linear_references(all);
    add_matmul_references(all);
    add_memory_references(all);
    add_norm_references(all);
    add_reduce_references(all);
    add_softmax_attention_references(all);
    add_softmax_references(all);
    add_sampled_softmax_references(all);
    add_shape_references(all);
    add_vector_quantization_references(all);
    return all;
  }();
  return references;
}

}  // namespace tally::testing
