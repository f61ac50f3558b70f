#pragma once

#include "tally/ops/attention/softmax_attention.h"

namespace tally::ops {

/// The same function as softmax_attention(), computed as textbooks do: every head of every sequence gets a whole matrix
/// of scores, then of probabilities. A baseline for its speed and its correctness; use the other one.
///
/// Shapes, options and errors as there. Keeps q, k, v and all probabilities: heads * sum of squared lengths.
Var softmax_attention_materialized(const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                                   const AttentionOptions& options = {});

}  // namespace tally::ops
