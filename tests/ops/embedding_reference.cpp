#include "tests/ops/references.h"

namespace tally::testing {

void add_embedding_references(References& references) {
  references["embedding"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::vector<double> table = in[0].to_doubles();
    const std::int64_t width = in[0].dim(1);
    std::vector<double> y;
    for (const double index : in[1].to_doubles()) {
      for (std::int64_t j = 0; j < width; ++j) {
        y.push_back(
            options.number("scale", 1) *
            table[static_cast<std::size_t>(index) * static_cast<std::size_t>(width) + static_cast<std::size_t>(j)]);
      }
    }
    return {Tensor::from(y, in[1].shape().with_appended(width))};
  };
}

}  // namespace tally::testing
