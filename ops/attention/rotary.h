#pragma once

#include <cstdint>

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"
#include "tally/core/words.h"

namespace tally::ops {

/// Which columns of a head turn together.
enum class RotaryPairs : std::uint8_t {
  halves,       ///< column i of the first half and column i of the second
  interleaved,  ///< columns 2 i and 2 i + 1, as the paper has them
};
constexpr auto words(RotaryPairs) {
  using W = Word<RotaryPairs>;
  return std::array{W{"halves", RotaryPairs::halves}, W{"interleaved", RotaryPairs::interleaved}};
}

struct RotaryOptions {
  std::int64_t heads = 1;         ///< side by side in the columns of x, all turned alike
  std::int64_t rotary_width = 0;  ///< of a head's columns, the first that turn; 0 for all
  RotaryPairs pairs = RotaryPairs::halves;
  double base = 10000;  ///< pair i of R / 2 turns by position * base^(-2 i / R)
  /// [P, R / 2] both or none, of the type of x: a position's own cosines and sines, in place of `rotary_width` and
  /// `base`. They need not be of any angle.
  Tensor cosines = {}, sines = {};
};

/// Rotary positions (RoPE, arXiv 2104.09864): each pair (a, b) of columns turned by an angle in proportion to the row's
/// position, (a cos - b sin, b cos + a sin). Inner products of two rows then depend on the difference of their
/// positions.
///
/// x [T, heads * width]   positions i64 [T], at most 2^40 in size, or in [0, P) with cosines and sines
///
/// Returns [T, heads * width]. The gradient is turned back (by the transposed map); keeps positions alone, and the
/// tables. Angles are reduced to one turn in double: in f32 position 10^9 is as accurate as 1, in f64 errors grow with
/// the position, to 1e-10 at 10^9.
/// Throws ShapeError, DTypeError; ValueError for options that fit no head and positions that are too large; IndexError
/// for positions outside the tables.
Var rotary(const Var& x, const Tensor& positions, const RotaryOptions& options = {});

/// The same at places 0, 1, ... within each packed sequence, counted from `starts` i64 [N] where given: the numbers of
/// events that came before, by which a sequence in pieces gives the bits of the whole one.
Var rotary(const Var& x, const Offsets& offsets, const Tensor& starts = {}, const RotaryOptions& options = {});

}  // namespace tally::ops
