#include <algorithm>
#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {

void add_cross_entropy_references(References& references) {
  references["cross_entropy"] = [](std::span<const Tensor> in, const ops::OpOptions&) -> std::vector<Tensor> {
    const std::vector<double> logits = in[0].to_doubles(), targets = in[1].to_doubles();
    const auto classes = static_cast<std::size_t>(in[0].dim(1));
    long double total = 0;
    int counted = 0;
    for (std::size_t t = 0; t < targets.size(); ++t) {
      if (targets[t] < 0) continue;
      const double* row = logits.data() + t * classes;
      const long double largest = *std::max_element(row, row + classes);
      long double sum = 0;
      for (std::size_t c = 0; c < classes; ++c) sum += std::exp(row[c] - largest);
      total += largest + std::log(sum) - row[static_cast<std::size_t>(targets[t])];
      ++counted;
    }
    return {Tensor::scalar(static_cast<double>(counted == 0 ? 0 : total / counted), DType::f64)};
  };
}

}  // namespace tally::testing
