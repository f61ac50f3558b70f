#pragma once

#include <cstdint>
#include <span>

namespace tally::kernels {

/// y_t = x_t + factor y_(t-1) within each sequence, column by column, for rows [bounds.back(), width]; `reverse`: y_t =
/// x_t + factor y_(t+1). Sums are carried in double. Parallel over sequences and blocks of columns.
template <class T>
void decayed_sum(std::span<const std::int64_t> bounds, std::int64_t width, double factor, bool reverse, const T* x,
                 T* y);

/// Sum over rows and columns of gradient_t y_(t-1), y_(t-1) of the same sequence. The same bits for any number of
/// threads.
template <class T>
double decayed_sum_slope(std::span<const std::int64_t> bounds, std::int64_t width, const T* gradient, const T* y);

}  // namespace tally::kernels
