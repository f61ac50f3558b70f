#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {

void add_decayed_sum_references(References& references) {
  // Every pair of rows of a sequence, without a recurrence.
  references["decayed_sum"] = [](std::span<const Tensor> in, const ops::OpOptions&) -> std::vector<Tensor> {
    const std::vector<double> x = in[0].to_doubles(), bounds = in[2].to_doubles();
    const double rate = in[1].defined() ? std::exp(in[1].to_doubles()[0]) : 0;
    const auto width = static_cast<std::size_t>(in[0].dim(1));
    std::vector<double> out(x.size());
    for (std::size_t s = 0; s + 1 < bounds.size(); ++s) {
      const auto begin = static_cast<std::size_t>(bounds[s]), end = static_cast<std::size_t>(bounds[s + 1]);
      for (std::size_t t = begin; t < end; ++t) {
        for (std::size_t j = begin; j <= t; ++j) {
          const double weight = std::exp(-rate * static_cast<double>(t - j));
          for (std::size_t k = 0; k < width; ++k) out[t * width + k] += weight * x[j * width + k];
        }
      }
    }
    return {Tensor::from(out, in[0].shape())};
  };
}

}  // namespace tally::testing
