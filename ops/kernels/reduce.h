#pragma once

#include <cstdint>

// Reductions that need more than a sum, over raw row-major memory. T is float or double. All run on the calling thread.

namespace tally::kernels {

/// Brings `best[j]` and its position `where[j]` (-1: none yet) up to date with rows of n elements that follow one
/// another from x; `position` is that of x[0]. The first of equals stays; the first NaN beats every number.
template <class T>
void update_extremes(bool largest, T* best, std::int64_t* where, const T* x, std::int64_t position, std::int64_t rows,
                     std::int64_t columns, std::int64_t stride);

/// Positions in blocks of `size` rows of `inner` elements become the rows that they lie in.
void rows_of_positions(std::int64_t* where, std::int64_t n, std::int64_t size, std::int64_t inner);

/// to[where[i]] += from[i], in order.
template <class T>
void scatter_add(T* to, const std::int64_t* where, const T* from, std::int64_t n);

/// y[i] = x[0] + ... + x[i] for each of `columns` columns of n rows `stride` apart; in double. `reverse`: from the end.
template <class T>
void cumulative_sum(const T* x, T* y, std::int64_t n, std::int64_t columns, std::int64_t stride, bool reverse);

/// log(sum(exp(x))) of n elements. `scratch` holds n.
template <class T>
T log_sum_exp(const T* x, T* scratch, std::int64_t n);

/// gx = gy exp(x) / sum(exp(x)); zeros when all x are -infinity.
template <class T>
void log_sum_exp_backward(T gy, const T* x, T* gx, std::int64_t n);

/// The k largest of n elements, descending, equal ones by index, NaN first, and where they stand.
template <class T>
void top_k(const T* x, std::int64_t n, std::int64_t k, T* values, std::int64_t* indices);

/// indices[i, j] += i * n for i < rows, j < k: positions within rows become positions in all of them.
void add_row_starts(std::int64_t* indices, std::int64_t rows, std::int64_t k, std::int64_t n);

}  // namespace tally::kernels
