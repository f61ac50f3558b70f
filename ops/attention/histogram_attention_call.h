#pragma once

#include "tally/ops/attention/histogram_attention.h"

// What histogram_attention() and the surrogate of its catalog entry share.

namespace tally::kernels {
template <class T>
struct HistogramProblem;
}  // namespace tally::kernels

namespace tally::ops::detail {

/// Inputs of a call that passed its checks, contiguous.
struct HistogramCall {
  Tensor codes, assignments, tables, values;  // assignments may be absent
  Offsets offsets;
  HistogramAttentionOptions options;
  double rate = 0;

  std::int64_t codebooks() const { return tables.dim(0); }
  std::int64_t words() const { return tables.dim(1); }
  std::int64_t width() const { return values.dim(1); }
  DType dtype() const { return tables.dtype(); }

  /// As the kernels see it; points into this.
  template <class T>
  kernels::HistogramProblem<T> problem() const;
  /// `dense` [T, B, W] is tallied in place of the assignments, where it is given.
  Tensor forward(const Tensor& dense = {}) const;
};

/// Throws what histogram_attention() says it throws. `differentiated`: the gradient of assignments will be asked for.
HistogramCall check_histogram_attention(const Tensor& codes, const Var& assignments, const Var& tables,
                                        const Var& values, const Var& log_decay, const Offsets& offsets,
                                        const HistogramAttentionOptions& options, bool differentiated);

/// softmax(logits) over codewords, [T, B, W].
Tensor codeword_softmax(const Tensor& logits);

}  // namespace tally::ops::detail
