#pragma once

#include <cstdint>
#include <span>

namespace tally::kernels {

/// out [N, count, width]: the last `count` rows of each sequence, those of a shorter one preceded by the last rows of
/// `initial` [N, count, width], or by zeros where it is null. Parallel over sequences.
template <class T>
void last_rows(std::span<const std::int64_t> bounds, std::int64_t count, std::int64_t width, const T* x,
               const T* initial, T* out);

/// Its gradient: g [N, count, width] goes back to the rows that it came from, gx [bounds.back(), width] and ginitial
/// [N, count, width], either may be null. Every element is written.
template <class T>
void last_rows_gradient(std::span<const std::int64_t> bounds, std::int64_t count, std::int64_t width, const T* g, T* gx,
                        T* ginitial);

}  // namespace tally::kernels
