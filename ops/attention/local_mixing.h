#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"

namespace tally::ops {

struct LocalMixingOptions {
  std::int64_t heads = 1;
  std::int64_t ahead = 0;  ///< rows after its own that a row sees
};

/// Sums of nearby values with weights of each row's own, over packed sequences: y_t = sum_i w_ti v_(t + ahead - i) for
/// each head, i below the number of taps; rows outside the sequence count as zeros. With w_ti = <q_t, e_i> it is the
/// position part of Bello's lambda layers (arXiv 2102.08602) in a local window.
///
/// weights [T, heads * taps], head h in columns [h taps, (h + 1) taps)   values [T, e] of all heads   offsets [N + 1]
///
/// Returns [T, heads * e]. Time O(T heads taps e). Keeps each input when the other is tracked. Throws ShapeError,
/// DTypeError; ValueError for fewer than one head, or `ahead` outside [0, taps).
Var local_mixing(const Var& weights, const Var& values, const Offsets& offsets, const LocalMixingOptions& options = {});

}  // namespace tally::ops
