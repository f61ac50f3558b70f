#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace tally::kernels {

/// Rows of a chunk.
inline constexpr std::int64_t kLookupChunk = 64;

/// Sums over pairs of a row and a lookup that sees it, from which the gradients of a chunk's decays follow. A pair (u,
/// j) is what lookup j reads of row u, times j's gradient.
struct PairSums {
  using PerRow = std::array<double, static_cast<std::size_t>(kLookupChunk)>;
  PerRow begun{};     ///< pairs of lookups at a row and all rows before it
  PerRow ended{};     ///< pairs of a row and lookups behind it, in the chunk
  PerRow later{};     ///< pairs of a row and lookups after the chunk
  double before = 0;  ///< pairs of the chunk's lookups and rows before the chunk
};

/// Decays and gains of a chunk of rows. A decay from one row to another is the running product of the rows' own, so
/// that it is exact where one of them is 0: differences of cumulative logarithms would be infinity less infinity.
template <class T>
class ChunkGates {
 public:
  ChunkGates();
  /// Those of `rows` rows; null for no decay and gains of 1.
  void load(const T* log_decay, const T* gain, std::int64_t rows);

  /// What is left, at row t, of the state before the chunk.
  T before(std::int64_t t) const { return before_[static_cast<std::size_t>(t)]; }
  /// What is left of row t after the chunk.
  T after(std::int64_t t) const { return between_[static_cast<std::size_t>((rows_ - 1) * kLookupChunk + t)]; }
  T gain(std::int64_t t) const { return gain_ == nullptr ? T{1} : gain_[t]; }

  /// x[t] *= what is left of row t at row `place`, and its gain if `gained`, for rows up to there; 0 for others below
  /// `rows`.
  void weigh(std::int64_t place, std::int64_t rows, bool gained, T* x) const;
  /// Adds the pairs of a lookup at row `place`: `products` of its query and the keys, weighed without gains, `slopes`
  /// of its gradient and the values, and `read` of rows before the chunk.
  void add_pairs(std::int64_t place, const T* products, const T* slopes, double read, PairSums& sums) const;
  /// The gradients of the chunk's log decays: pairs that a row's decay lies between, from pairs `crossing` the chunk's
  /// end. Returns those that cross its beginning.
  double slopes(const PairSums& sums, double crossing, bool begins, T* gradient) const;

 private:
  std::int64_t rows_ = 0;
  const T* gain_ = nullptr;
  bool decays_ = false;
  std::vector<T> between_;  ///< [kLookupChunk, kLookupChunk]: what is left at a row (first) of one before it
  std::array<T, static_cast<std::size_t>(kLookupChunk)> before_;
  PairSums::PerRow decay_;
};

}  // namespace tally::kernels
