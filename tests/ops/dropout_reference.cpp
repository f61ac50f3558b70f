#include <cmath>

#include "tally/core/random.h"
#include "tests/ops/references.h"

namespace tally::testing {

void add_dropout_references(References& references) {
  references["dropout"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const double rate = options.number("rate", 0);
    std::vector<double> y = in[0].to_doubles();
    const auto columns = static_cast<std::uint64_t>(in[0].dim(-1));
    for (std::uint64_t i = 0; i < y.size(); ++i) {
      const std::uint64_t row = static_cast<std::uint64_t>(options.integer("first_row", 0)) + i / columns;
      std::uint16_t bits = 0;
      random_bits(options.key(), row, i % columns, 1, &bits);
      y[i] = bits < std::round(rate * 65536) ? 0 : y[i] / (1 - rate);
    }
    return {Tensor::from(y, in[0].shape())};
  };
}

}  // namespace tally::testing
