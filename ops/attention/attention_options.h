#pragma once

#include <initializer_list>
#include <string_view>
#include <utility>

#include "tally/ops/attention/softmax_attention.h"
#include "tally/ops/catalog.h"

// What attentions share: the checks of a call, which lookups and recurrences use, too, its options and inputs in the
// catalog, and the entry of the two softmax attentions.

namespace tally::ops::detail {

/// Sizes of a call that passed its checks.
struct AttentionSizes {
  std::int64_t heads, width, value_width;
  double scale;
};

/// Throws what softmax_attention() says it throws, in the name of `op`.
AttentionSizes check_attention(std::string_view op, const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                               const AttentionOptions& options);

/// Throws DTypeError unless the inputs that are given are of one floating type; the first one is.
void check_one_type(std::string_view op, std::initializer_list<std::pair<std::string_view, const Var*>> inputs);

/// Throws ValueError, naming the row, unless every element of x [rows, columns] (dense rows) is finite.
void check_finite_rows(std::string_view op, std::string_view name, const Tensor& x);

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
