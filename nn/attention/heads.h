#pragma once

#include <cstdint>

#include "tally/nn/layers.h"

namespace tally::nn {

/// Each head's part [d] of rows [T, heads * d] normed by the same weights [d].
Var normed_heads(const RmsNorm& norm, const Var& x, std::int64_t heads);

}  // namespace tally::nn
