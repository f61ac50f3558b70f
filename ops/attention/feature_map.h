#pragma once

#include <cstdint>

#include "tally/autograd/var.h"
#include "tally/ops/attention/feature_kind.h"

namespace tally::ops {

struct FeatureMapOptions {
  std::int64_t heads = 1;
  FeatureKind kind = FeatureKind::elu;
};

/// Features [T, heads * m] of rows x [T, heads * d], head by head. f32 or f64. Keeps x. Throws ShapeError, DTypeError;
/// ValueError for no heads.
Var feature_map(const Var& x, const FeatureMapOptions& options = {});

}  // namespace tally::ops
