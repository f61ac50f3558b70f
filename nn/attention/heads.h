#pragma once

#include <cstdint>

#include "tally/nn/layers.h"

// What is done to each head's part [d] of rows [T, heads * d].

namespace tally::nn {

/// Each part brought to length 1; `epsilon` is added to its squared length.
Var unit_heads(const Var& x, std::int64_t heads, double epsilon);

/// Each part normed by the same weights [d].
Var normed_heads(const RmsNorm& norm, const Var& x, std::int64_t heads);

}  // namespace tally::nn
