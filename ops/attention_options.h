#pragma once

#include <string_view>

#include "tally/ops/catalog.h"
#include "tally/ops/softmax_attention.h"

// What the two softmax attentions share: the check of a call, and their catalog entry.

namespace tally::ops::detail {

/// Sizes of a call that passed its checks.
struct AttentionSizes {
  std::int64_t heads, width, value_width;
  double scale;
};

/// Throws what softmax_attention() says it throws, in the name of `op`.
AttentionSizes check_attention(std::string_view op, const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                               const AttentionOptions& options);

using AttentionFunction = Var (*)(const Var&, const Var&, const Var&, const Offsets&, const AttentionOptions&);

/// The catalog entry of an attention with this contract: inputs q, k, v, offsets.
OpEntry attention_entry(std::string name, std::string summary, AttentionFunction function);

}  // namespace tally::ops::detail
