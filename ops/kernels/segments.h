#pragma once

#include <cstdint>
#include <span>

// Rows of packed sequences made one row each, [bounds.back(), width] to [bounds.size() - 1, width]. T is float or
// double. Parallel over sequences.

namespace tally::kernels {

/// Sums in double, or means; 0 where there is no row.
template <class T>
void segment_sums(std::span<const std::int64_t> bounds, std::int64_t width, bool mean, const T* x, T* out);

/// Its gradient: the row of g for each row of its sequence, divided by their number for means.
template <class T>
void segment_sums_gradient(std::span<const std::int64_t> bounds, std::int64_t width, bool mean, const T* g, T* gx);

/// The largest element of each column and its position in x, the first of equals and the first NaN before every number;
/// 0 and -1 where there is no row.
template <class T>
void segment_max(std::span<const std::int64_t> bounds, std::int64_t width, const T* x, T* out, std::int64_t* where);

/// gx[where[i]] = g[i] for those of n elements that have a place.
template <class T>
void place_where_known(const std::int64_t* where, const T* g, std::int64_t n, T* gx);

}  // namespace tally::kernels
