#include "tally/nn/initializers.h"

#include <cmath>
#include <vector>

namespace tally::nn {

Tensor normal(const Shape& shape, double deviation, RngKey key) {
  Tensor tensor(shape);
  fill_normal(key, tensor, 0, deviation);
  return tensor;
}

Tensor truncated_normal(const Shape& shape, double deviation, RngKey key) {
  Tensor tensor = normal(shape, deviation, key);
  float* values = tensor.mutable_data<float>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    // A few redraws, each a stream of its own; beyond them a value is clamped, which happens to one in 10^13.
    for (std::uint64_t attempt = 1; std::abs(values[i]) > 2 * deviation; ++attempt) {
      if (attempt > 10) {
        values[i] = static_cast<float>(std::copysign(2 * deviation, values[i]));
        break;
      }
      Tensor redrawn({2});
      fill_normal(key.fold_in(attempt).fold_in(static_cast<std::uint64_t>(i)), redrawn, 0, deviation);
      values[i] = redrawn.data<float>()[0];
    }
  }
  return tensor;
}

Tensor uniform(const Shape& shape, double bound, RngKey key) {
  Tensor tensor(shape);
  fill_uniform(key, tensor, -bound, bound);
  return tensor;
}

Tensor xavier_uniform(const Shape& shape, RngKey key) {
  check<ShapeError>(shape.rank() == 2, "xavier_uniform", "needs a weight [out, in]; got ", shape);
  return uniform(shape, std::sqrt(6.0 / static_cast<double>(shape[0] + shape[1])), key);
}

Tensor xavier_normal(const Shape& shape, RngKey key) {
  check<ShapeError>(shape.rank() >= 2 && shape.numel() > 0, "xavier_normal", "needs a weight [out, in, ...]; got ",
                    shape);
  const double fans = static_cast<double>(shape.numel()) / static_cast<double>(shape[0]) +
                      static_cast<double>(shape.numel()) / static_cast<double>(shape[1]);
  return normal(shape, std::sqrt(2.0 / fans), key);
}

Tensor he_normal(const Shape& shape, RngKey key) {
  check<ShapeError>(shape.rank() == 2 && shape[1] > 0, "he_normal", "needs a weight [out, in]; got ", shape);
  return normal(shape, std::sqrt(2.0 / static_cast<double>(shape[1])), key);
}

Tensor orthogonal_directions(std::int64_t count, std::int64_t width, RngKey key) {
  check<ValueError>(count > 0 && width > 0, "orthogonal_directions", "needs sizes above 0; got count ", count,
                    ", width ", width);
  const auto norm = [&](const double* x) {
    double sum = 0;
    for (std::int64_t i = 0; i < width; ++i) sum += x[i] * x[i];
    return std::sqrt(sum);
  };
  Tensor drawn({count, width}, DType::f64), lengths({count, width}, DType::f64), result({count, width});
  fill_normal(key.fold_in("directions"), drawn, 0, 1);
  fill_normal(key.fold_in("lengths"), lengths, 0, 1);
  double* rows = drawn.mutable_data<double>();
  float* out = result.mutable_data<float>();
  for (std::int64_t r = 0; r < count; ++r) {
    double* row = rows + r * width;
    // Gram-Schmidt against the rows of the block so far, twice: rounding of the first pass goes in the second.
    for (int pass = 0; pass < 2; ++pass) {
      for (std::int64_t other = r / width * width; other < r; ++other) {
        const double* before = rows + other * width;
        double product = 0;
        for (std::int64_t i = 0; i < width; ++i) product += before[i] * row[i];
        for (std::int64_t i = 0; i < width; ++i) row[i] -= product * before[i];
      }
      const double size = norm(row);
      for (std::int64_t i = 0; i < width; ++i) row[i] /= size;
    }
    const double length = norm(lengths.data<double>() + r * width);
    for (std::int64_t i = 0; i < width; ++i) out[r * width + i] = static_cast<float>(length * row[i]);
  }
  return result;
}

}  // namespace tally::nn
