#include <catch2/catch.hpp>
#include <cmath>

#include "tally/nn/initializers.h"
#include "tally/ops/attention/normalized_linear_attention.h"

namespace orthogonal_directions_test {

using namespace tally;
using ops::AttentionMask;
using ops::FeatureMap;

TEST_CASE("positive random features approach softmax attention", "[initializers]") {
  const std::int64_t width = 4;
  // Of moderate size: the variance of a weight grows as e^(|q + k|^2).
  const Offsets offsets = Offsets::single(60);
  const Tensor q = nn::normal({60, width}, 0.4, RngKey{1}), k = nn::normal({60, width}, 0.4, RngKey{2}),
               v = nn::normal({60, 5}, 1, RngKey{3});
  for (const AttentionMask mask : {AttentionMask::causal, AttentionMask::bidirectional}) {
    const Tensor exact = ops::softmax_attention(q, k, v, offsets, {.mask = mask}).value();
    const auto error = [&](std::int64_t count) {
      const Tensor y =
          ops::normalized_linear_attention(q, k, v, nn::orthogonal_directions(count, width, RngKey{3}), offsets,
                                           {.mask = mask, .feature_map = FeatureMap::positive_random})
              .value();
      double squares = 0;
      for (std::int64_t i = 0; i < y.numel(); ++i)
        squares += std::pow(static_cast<double>(y.data<float>()[i] - exact.data<float>()[i]), 2);
      return std::sqrt(squares / static_cast<double>(y.numel()));
    };
    // Monte Carlo: 256 times the directions, a sixteenth of the error.
    const double few = error(16), many = error(4096);
    CHECK(many < 0.01);
    CHECK(many < few / 8);
  }
}

TEST_CASE("orthogonal directions are orthogonal in blocks and as long as normal vectors", "[initializers]") {
  const std::int64_t width = 16, count = 400;
  const std::vector<double> w = nn::orthogonal_directions(count, width, RngKey{4}).to_doubles();
  const auto product = [&](std::int64_t a, std::int64_t b) {
    double sum = 0;
    for (std::int64_t i = 0; i < width; ++i)
      sum += w[static_cast<std::size_t>(a * width + i)] * w[static_cast<std::size_t>(b * width + i)];
    return sum;
  };
  double squares = 0;
  for (std::int64_t a = 0; a < count; ++a) {
    squares += product(a, a);
    for (std::int64_t b = a / width * width; b < a; ++b) CHECK(std::abs(product(a, b)) < 1e-5);
  }
  CHECK(squares / count == Approx(16).margin(1));  // deviation of the mean: sqrt(32 / 400) = 0.28
}

}  // namespace orthogonal_directions_test
