#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/ops/references.h"

namespace tally::testing {

void add_item_cross_entropy_references(References& references) {
  references["item_cross_entropy"] = [](std::span<const Tensor> in,
                                        const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::int64_t width = in[0].dim(1), items = in[1].dim(0);
    const std::vector<double> x = in[0].to_doubles(), table = in[1].to_doubles(), targets = in[2].to_doubles();
    const std::vector<double> bias =
        in[3].defined() ? in[3].to_doubles() : std::vector<double>(static_cast<std::size_t>(items));
    const std::vector<double> weights = in[4].defined() ? in[4].to_doubles() : std::vector<double>(targets.size(), 1.0);
    double loss = 0;
    for (std::size_t t = 0; t < targets.size(); ++t) {
      if (targets[t] < 0) continue;
      std::vector<double> scores(bias);
      for (std::int64_t i = 0; i < items; ++i) {
        for (std::int64_t d = 0; d < width; ++d) {
          scores[static_cast<std::size_t>(i)] += x[t * static_cast<std::size_t>(width) + static_cast<std::size_t>(d)] *
                                                 table[static_cast<std::size_t>(i * width + d)];
        }
      }
      double largest = -std::numeric_limits<double>::infinity(), sum = 0;
      for (const double score : scores) largest = std::max(largest, score);
      for (const double score : scores) sum += std::exp(score - largest);
      loss += weights[t] * (largest + std::log(sum) - scores[static_cast<std::size_t>(targets[t])]);
    }
    return {Tensor::scalar(loss * options.number("reduction_scale", 1), DType::f64)};
  };
}

}  // namespace tally::testing
