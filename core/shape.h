#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <span>

namespace tally {

/// Largest number of dimensions of a tensor.
inline constexpr int kMaxRank = 8;

/// Sizes of a tensor's dimensions, held inline. Rank 0 is a scalar with one element.
class Shape {
 public:
  Shape() = default;
  /// Throws ShapeError for more than kMaxRank dimensions, a negative size, or a product beyond 2^63 - 1.
  Shape(std::initializer_list<std::int64_t> sizes);
  explicit Shape(std::span<const std::int64_t> sizes);

  int rank() const { return rank_; }
  /// Size of dimension `i`; negative `i` counts from the end. Throws ShapeError outside [-rank, rank).
  std::int64_t operator[](int i) const { return sizes_[static_cast<std::size_t>(normalize(i))]; }
  void set(int i, std::int64_t size) { sizes_[static_cast<std::size_t>(normalize(i))] = size; }
  /// `i` in [0, rank) for `i` in [-rank, rank). Throws ShapeError outside.
  int normalize(int i) const {
    if (i < 0) i += rank_;
    if (i < 0 || i >= rank_) [[unlikely]] {
      throw_bad_dim(i);
    }
    return i;
  }
  /// Number of elements: the product of the sizes, 1 for rank 0.
  std::int64_t numel() const;
  std::span<const std::int64_t> sizes() const { return {sizes_.data(), static_cast<std::size_t>(rank_)}; }
  const std::int64_t* begin() const { return sizes_.data(); }
  const std::int64_t* end() const { return sizes_.data() + rank_; }

  /// This shape with one more dimension at the end / without dimension `i`.
  Shape with_appended(std::int64_t size) const;
  Shape without(int i) const;

  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_; ++i) {
      if (a.sizes_[static_cast<std::size_t>(i)] != b.sizes_[static_cast<std::size_t>(i)]) return false;
    }
    return true;
  }

 private:
  [[noreturn]] void throw_bad_dim(int i) const;

  std::array<std::int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};

/// Prints `[2, 3]`.
std::ostream& operator<<(std::ostream& out, const Shape& shape);

/// a * b; throws ShapeError when the product does not fit into 63 bits. Both must be non-negative.
std::int64_t checked_multiply(std::int64_t a, std::int64_t b);

}  // namespace tally
