#pragma once

#include <cstdint>
#include <span>

namespace tally::kernels {

/// Rows of heads side by side, and the angle by which each pair of a head's first 2 pairs columns turns.
template <class T>
struct RotaryPlan {
  std::span<const std::int64_t> positions;  ///< of each row
  std::int64_t heads = 1, head_width = 0, pairs = 0;
  bool interleaved = false;    ///< columns (2 i, 2 i + 1) are a pair, or (i, pairs + i)
  double base = 10000;         ///< pair i turns by position * base^(-i / pairs)
  const T* cosines = nullptr;  ///< [P, pairs], read at the position, and sines beside them; null: by the base
  const T* sines = nullptr;
};

/// y = each pair (a, b) of x turned: (a cos - b sin, b cos + a sin); `inverse`: the transposed map, sin negated. Other
/// columns are copied. Angles are reduced in extended precision, so they are exact to about 1e-19 of their size; a
/// row's bits depend on its position alone. y may be x. Parallel over blocks of rows.
template <class T>
void rotate(const RotaryPlan<T>& plan, bool inverse, const T* x, T* y);

/// positions[t] = starts[n] (0 where null) + t's place within its sequence n.
void packed_positions(std::span<const std::int64_t> bounds, const std::int64_t* starts, std::int64_t* positions);

}  // namespace tally::kernels
