#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {

void add_pointwise_attention_references(References& references) {
  references["pointwise_attention"] = [](std::span<const Tensor> in,
                                         const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::vector<double> q = in[0].to_doubles(), k = in[1].to_doubles(), v = in[2].to_doubles(),
                              bounds = in[3].to_doubles();
    const auto heads = static_cast<std::size_t>(options.integer("heads", 1));
    const auto columns = static_cast<std::size_t>(in[0].dim(1)), value_columns = static_cast<std::size_t>(in[2].dim(1));
    const std::size_t d = columns / heads, e = value_columns / heads;
    const bool causal = options.text("mask", "causal") == "causal";
    const double scale =
        options.number("scale", 0) != 0 ? options.number("scale", 0) : 1 / std::sqrt(static_cast<double>(d));
    std::vector<double> out(v.size(), 0.0);
    for (std::size_t s = 0; s + 1 < bounds.size(); ++s) {
      const auto begin = static_cast<std::size_t>(bounds[s]), end = static_cast<std::size_t>(bounds[s + 1]);
      for (std::size_t i = begin; i < end; ++i) {
        const std::size_t seen = causal ? i + 1 : end;
        const double n = options.text("normalizer", "visible") == "window"
                             ? static_cast<double>(options.integer("window", 0))
                             : static_cast<double>(seen - begin);
        for (std::size_t j = begin; j < seen; ++j) {
          for (std::size_t h = 0; h < heads; ++h) {
            double score = 0;
            for (std::size_t c = h * d; c < (h + 1) * d; ++c) score += scale * q[i * columns + c] * k[j * columns + c];
            const double weight = score / (1 + std::exp(-score)) / n;
            for (std::size_t c = h * e; c < (h + 1) * e; ++c)
              out[i * value_columns + c] += weight * v[j * value_columns + c];
          }
        }
      }
    }
    return {Tensor::from(out, in[2].shape())};
  };
}

}  // namespace tally::testing
