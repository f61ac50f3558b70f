#include "tally/nn/initializers.h"

#include <cmath>

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

}  // namespace tally::nn
