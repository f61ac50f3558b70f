#pragma once

#include <cstdint>

#include "tally/ops/attention/feature_map.h"

namespace tally::ops::detail {

/// Dense rows [rows, width] to map, each a head of one place.
struct FeatureRows {
  FeatureKind kind;
  std::int64_t rows, width;
};

/// y [rows, feature_width]. Parallel over rows.
template <class T>
void map_rows(const FeatureRows& shape, const T* x, T* y);

/// gx [rows, width]. Computes features again.
template <class T>
void map_rows_backward(const FeatureRows& shape, const T* x, const T* gy, T* gx);

}  // namespace tally::ops::detail
