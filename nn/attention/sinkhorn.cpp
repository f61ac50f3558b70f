#include "tally/nn/attention/sinkhorn.h"

#include <vector>

#include "tally/core/parallel.h"
#include "tally/ops/attention/sinkhorn_attention.h"
#include "tally/ops/tensor/shape.h"

namespace tally::nn {
namespace {

/// The first row of each block of each sequence.
Tensor first_rows(const Offsets& offsets, std::int64_t block) {
  std::vector<std::int64_t> rows;
  for (std::int64_t s = 0; s < offsets.count(); ++s) {
    for (std::int64_t b = 0; b < block_count(offsets.length(s), block); ++b) rows.push_back(offsets.at(s) + b * block);
  }
  const auto count = static_cast<std::int64_t>(rows.size());
  return Tensor::from(rows, {count});
}

}  // namespace

SinkhornCore SinkhornCore::make(const SinkhornOptions& options, const AttentionSettings& settings, RngKey key) {
  check<ValueError>(settings.max_length >= 1 && options.block >= 1, "sinkhorn attention",
                    "needs to know the longest sequence, and a row in a block; got ", settings.max_length, " and ",
                    options.block);
  const std::int64_t blocks = block_count(settings.max_length, options.block);
  return {.heads = settings.heads,
          .mask = settings.mask,
          .block = options.block,
          .sorter = Linear::make({.in = settings.width, .out = blocks}, key)};
}

Var SinkhornCore::operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence, const Context&) const {
  const Var logits = sorter(ops::gather(q, first_rows(sequence.offsets, block)));
  return ops::sinkhorn_attention(q, k, v, logits, sequence.offsets, {.heads = heads, .mask = mask, .block = block});
}

std::string SinkhornCore::layout() const {
  return " of " + std::to_string(heads) + " heads, blocks of " + std::to_string(block) + " rows";
}

}  // namespace tally::nn
