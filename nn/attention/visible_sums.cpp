#include "tally/nn/attention/visible_sums.h"

#include <vector>

#include "tally/ops/recurrent/decayed_sum.h"
#include "tally/ops/tensor/shape.h"

namespace tally::nn {

Var visible_sums(const Var& x, const Offsets& offsets, ops::AttentionMask mask) {
  if (mask == ops::AttentionMask::causal) return ops::decayed_sum(x, {}, offsets);
  std::vector<std::int64_t> sequences;
  for (std::int64_t i = 0; i < offsets.count(); ++i) {
    sequences.insert(sequences.end(), static_cast<std::size_t>(offsets.length(i)), i);
  }
  const Tensor of_rows = Tensor::from(sequences, {x.dim(0)});
  const Var zeros(Tensor::zeros({offsets.count(), x.dim(1)}, x.dtype()));
  return ops::gather(ops::index_add(zeros, of_rows, x), of_rows);
}

}  // namespace tally::nn
