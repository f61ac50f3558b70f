#include <algorithm>
#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {

void add_normalized_linear_attention_references(References& references) {
  // All pairs of rows, as softmax attention with another weight; weights by their logarithms, so that none overflows.
  references["normalized_linear_attention"] = [](std::span<const Tensor> in,
                                                 const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::vector<double> q = in[0].to_doubles(), k = in[1].to_doubles(), v = in[2].to_doubles();
    const std::vector<double> w = in[3].defined() ? in[3].to_doubles() : std::vector<double>();
    const std::vector<double> bounds = in[4].to_doubles();
    const auto heads = static_cast<std::size_t>(options.integer("heads", 1));
    const auto columns = static_cast<std::size_t>(in[0].dim(1)), value_columns = static_cast<std::size_t>(in[2].dim(1));
    const std::size_t d = columns / heads, e = value_columns / heads;
    const bool causal = options.text("mask", "causal") == "causal";
    const double scale =
        options.number("scale", 0) != 0 ? options.number("scale", 0) : 1 / std::sqrt(static_cast<double>(d));

    const auto log_features = [&](const std::vector<double>& x, std::size_t row, std::size_t head) {
      const double* values = x.data() + row * columns + head * d;
      std::vector<double> logs;
      if (w.empty()) {
        for (std::size_t i = 0; i < d; ++i) logs.push_back(values[i] > 0 ? std::log1p(values[i]) : values[i]);
        return logs;
      }
      for (std::size_t f = 0; f * d < w.size(); ++f) {
        double exponent = 0;
        for (std::size_t i = 0; i < d; ++i)
          exponent += std::sqrt(scale) * w[f * d + i] * values[i] - scale * values[i] * values[i] / 2;
        logs.push_back(exponent);
      }
      return logs;
    };

    std::vector<double> out(v.size(), 0.0);
    for (std::size_t s = 0; s + 1 < bounds.size(); ++s) {
      const auto begin = static_cast<std::size_t>(bounds[s]), end = static_cast<std::size_t>(bounds[s + 1]);
      for (std::size_t h = 0; h < heads; ++h) {
        for (std::size_t i = begin; i < end; ++i) {
          const std::vector<double> query = log_features(q, i, h);
          std::vector<std::vector<double>> exponents;
          double largest = -1e300, sum = 0;
          for (std::size_t j = begin; j < (causal ? i + 1 : end); ++j) {
            exponents.push_back(log_features(k, j, h));
            for (std::size_t f = 0; f < query.size(); ++f) largest = std::max(largest, exponents.back()[f] += query[f]);
          }
          for (std::size_t j = 0; j < exponents.size(); ++j) {
            double weight = 0;
            for (const double exponent : exponents[j]) weight += std::exp(exponent - largest);
            sum += weight;
            for (std::size_t c = 0; c < e; ++c)
              out[i * value_columns + h * e + c] += weight * v[(begin + j) * value_columns + h * e + c];
          }
          for (std::size_t c = 0; c < e; ++c) out[i * value_columns + h * e + c] /= sum;
        }
      }
    }
    return {Tensor::from(out, in[2].shape())};
  };
}

}  // namespace tally::testing
