#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tally/core/tensor.h"

namespace tally {

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four random words as a pure
/// function of a 128-bit counter and a 64-bit key.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

/// Names a stream of random numbers. There is no generator state anywhere: the draw at (row, column) of a key is a pure
/// function of them, so results depend neither on threads nor on the order of evaluation, and resuming needs no state.
struct RngKey {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;

  /// A key independent of this one and of this key's other children.
  RngKey fold_in(std::uint64_t value) const;
  RngKey fold_in(std::string_view name) const;
  /// `n` independent keys: fold_in(0) ... fold_in(n - 1).
  std::vector<RngKey> split(int n) const;

  friend bool operator==(const RngKey&, const RngKey&) = default;
};

/// out[i] = the 32 random bits at (row, first_column + i). Rows must be below 2^32, columns below 2^34.
void random_bits(RngKey key, std::uint64_t row, std::uint64_t first_column, std::int64_t n, std::uint32_t* out);
/// The same by halves of words, lower half first: out[i] is half (first_column + i) % 2 of the word at (row,
/// (first_column + i) / 2). For masks, at half the cost. Columns must be below 2^35.
void random_bits(RngKey key, std::uint64_t row, std::uint64_t first_column, std::int64_t n, std::uint16_t* out);
/// Columns [first_column, first_column + n) of rows [first_row, first_row + rows), a row's `stride` numbers after those
/// of the row before: faster than row by row where rows are short. first_column is a multiple of 8; what stands between
/// n and the next multiple of 8 is written too.
void random_bits(RngKey key, std::uint64_t first_row, std::int64_t rows, std::uint64_t first_column, std::int64_t n,
                 std::uint16_t* out, std::int64_t stride);

/// Uniform in the open interval (0, 1), with 32 bits.
double uniform(RngKey key, std::uint64_t row, std::uint64_t column);
/// Uniform integer in [0, bound) without bias beyond 2^-32; bound at least 1.
std::uint64_t uniform_below(RngKey key, std::uint64_t row, std::uint64_t column, std::uint64_t bound);

/// Fills a floating tensor; element i (row-major) is the draw at (0, i).
void fill_uniform(RngKey key, Tensor& tensor, double low, double high);
void fill_normal(RngKey key, Tensor& tensor, double mean, double deviation);

/// A uniformly random order of 0 ... n - 1 (Fisher-Yates).
std::vector<std::int64_t> random_permutation(RngKey key, std::int64_t n);

}  // namespace tally
