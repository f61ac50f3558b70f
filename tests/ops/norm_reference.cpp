#include <cmath>

#include "tally/core/random.h"
#include "tests/ops/references.h"

namespace tally::testing {
namespace {

/// Rows of `x` normalised; `weight` and `bias` may be undefined.
Tensor normalized(const Tensor& x, bool centered, double epsilon, const Tensor& weight, const Tensor& bias) {
  std::vector<double> values = x.to_doubles();
  const auto columns = static_cast<std::size_t>(x.dim(-1));
  for (std::size_t row = 0; row < values.size(); row += columns) {
    long double mean = 0, squares = 0;
    for (std::size_t j = 0; j < columns; ++j) mean += centered ? values[row + j] : 0;
    mean /= static_cast<long double>(columns);
    for (std::size_t j = 0; j < columns; ++j) squares += (values[row + j] - mean) * (values[row + j] - mean);
    const long double deviation = std::sqrt(squares / static_cast<long double>(columns) + epsilon);
    for (std::size_t j = 0; j < columns; ++j) {
      long double y = (values[row + j] - mean) / deviation;
      if (weight.defined()) y *= weight.to_doubles()[j];
      if (bias.defined()) y += bias.to_doubles()[j];
      values[row + j] = static_cast<double>(y);
    }
  }
  return Tensor::from(values, x.shape());
}

}  // namespace

void add_norm_references(References& references) {
  references["layer_norm"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    return {normalized(in[0], true, options.number("epsilon", 1e-5), in[1], in[2])};
  };
  references["rms_norm"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    return {normalized(in[0], false, options.number("epsilon", 1e-6), in[1], Tensor())};
  };
  references["residual_dropout_norm"] = [](std::span<const Tensor> in,
                                           const ops::OpOptions& options) -> std::vector<Tensor> {
    const double rate = options.number("rate", 0);
    const std::vector<double> x = in[0].to_doubles();
    std::vector<double> sum = in[1].to_doubles();
    const auto columns = static_cast<std::uint64_t>(in[0].dim(-1));
    for (std::uint64_t i = 0; i < sum.size(); ++i) {
      std::uint16_t bits = 0;
      random_bits(options.key(), static_cast<std::uint64_t>(options.integer("first_row", 0)) + i / columns, i % columns,
                  1, &bits);
      if (bits >= std::round(rate * 65536)) sum[i] += x[i] / (1 - rate);
    }
    const Tensor total = Tensor::from(sum, in[0].shape());
    return {normalized(total, options.text("kind", "layer") == "layer", options.number("epsilon", 1e-5), in[2], in[3]),
            total};
  };
}

}  // namespace tally::testing
