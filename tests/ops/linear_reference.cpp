#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {

void add_linear_references(References& references) {
  references["linear"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::string activation = options.text("activation", "none");
    const std::vector<double> x = in[0].to_doubles(), w = in[1].to_doubles();
    const std::vector<double> b = in[2].defined() ? in[2].to_doubles() : std::vector<double>();
    const std::int64_t outputs = in[1].dim(0), inputs = in[1].dim(1);
    Shape shape = in[0].shape();
    shape.set(-1, outputs);
    std::vector<double> y;
    for (std::int64_t i = 0; i < shape.numel(); ++i) {
      const std::int64_t row = i / outputs, column = i % outputs;
      double z = b.empty() ? 0 : b[static_cast<std::size_t>(column)];
      for (std::int64_t k = 0; k < inputs; ++k) {
        z += x[static_cast<std::size_t>(row * inputs + k)] * w[static_cast<std::size_t>(column * inputs + k)];
      }
      if (activation == "relu") z = std::fmax(z, 0);
      if (activation == "gelu") z = z * std::erfc(-z / std::sqrt(2.0)) / 2;
      if (activation == "silu") z = z / (1 + std::exp(-z));
      if (activation == "tanh") z = std::tanh(z);
      if (activation == "sigmoid") z = 1 / (1 + std::exp(-z));
      y.push_back(z);
    }
    return {Tensor::from(y, shape)};
  };
}

}  // namespace tally::testing
