#pragma once

#include <string_view>

#include "tally/ops/attention/softmax_attention.h"
#include "tally/ops/catalog.h"

// What attentions share: the check of a call, its options and inputs in the catalog, and the entry of the two softmax
// attentions.

namespace tally::ops::detail {

/// Sizes of a call that passed its checks.
struct AttentionSizes {
  std::int64_t heads, width, value_width;
  double scale;
};

/// Throws what softmax_attention() says it throws, in the name of `op`.
AttentionSizes check_attention(std::string_view op, const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                               const AttentionOptions& options);

/// A tensor whose rows are dense, so that a kernel can read it where it lies.
Tensor with_dense_rows(const Tensor& x);

/// The option `mask` of a catalog call. Throws ConfigError for another word.
AttentionMask attention_mask(const OpOptions& options);

/// q, k, v and offsets for sequences of these lengths, for samples; `deviation` of q and k.
std::vector<Tensor> attention_inputs(const std::vector<std::int64_t>& lengths, std::int64_t columns,
                                     std::int64_t value_columns, std::uint64_t stream, double deviation = 1);

using AttentionFunction = Var (*)(const Var&, const Var&, const Var&, const Offsets&, const AttentionOptions&);

/// The catalog entry of an attention with this contract: inputs q, k, v, offsets.
OpEntry attention_entry(std::string name, std::string summary, AttentionFunction function);

}  // namespace tally::ops::detail
