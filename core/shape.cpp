#include "tally/core/shape.h"

#include "tally/core/error.h"

namespace tally {

std::int64_t checked_multiply(std::int64_t a, std::int64_t b) {
  std::int64_t product = 0;
  check<ShapeError>(a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, &product), "shape",
                    "needs a number of elements below 2^63; got ", a, " x ", b);
  return product;
}

Shape::Shape(std::initializer_list<std::int64_t> sizes) : Shape(std::span(sizes.begin(), sizes.size())) {}

Shape::Shape(std::span<const std::int64_t> sizes) {
  check<ShapeError>(sizes.size() <= kMaxRank, "shape", "needs at most ", kMaxRank, " dimensions; got ", sizes.size());
  // The product of the non-zero sizes must fit, so that a zero cannot hide an overflow whatever its place.
  std::int64_t product = 1;
  for (const std::int64_t size : sizes) {
    check<ShapeError>(size >= 0, "shape", "needs sizes of at least 0; got ", size);
    if (size > 0) product = checked_multiply(product, size);
    sizes_[static_cast<std::size_t>(rank_++)] = size;
  }
}

std::int64_t Shape::numel() const {
  std::int64_t product = 1;
  for (const std::int64_t size : *this) product *= size;
  return product;
}

Shape Shape::with_appended(std::int64_t size) const {
  check<ShapeError>(rank_ < kMaxRank, "shape", "needs at most ", kMaxRank, " dimensions; got ", rank_ + 1);
  std::array<std::int64_t, kMaxRank> sizes = sizes_;
  sizes[static_cast<std::size_t>(rank_)] = size;
  return Shape(std::span<const std::int64_t>(sizes.data(), static_cast<std::size_t>(rank_ + 1)));
}

Shape Shape::without(int i) const {
  i = normalize(i);
  Shape result;
  for (int d = 0; d < rank_; ++d) {
    if (d != i) result.sizes_[static_cast<std::size_t>(result.rank_++)] = sizes_[static_cast<std::size_t>(d)];
  }
  return result;
}

void Shape::throw_bad_dim(int i) const {
  fail<ShapeError>("shape", "needs a dimension in [", -rank_, ", ", rank_, ") for shape ", *this, "; got ", i);
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  std::string text;  // and not by the stream, whose locale may group digits
  for (int i = 0; i < shape.rank(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return out << '[' << text << ']';
}

}  // namespace tally
