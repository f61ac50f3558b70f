#include <algorithm>
#include <cmath>

#include "tally/core/random.h"
#include "tests/ops/references.h"

namespace tally::testing {
namespace {

/// Attention row by row, from the definition. Random bits are the one thing it takes from the library.
std::vector<Tensor> attention(std::span<const Tensor> in, const ops::OpOptions& options) {
  const std::vector<double> q = in[0].to_doubles(), k = in[1].to_doubles(), v = in[2].to_doubles();
  const std::vector<double> bounds = in[3].to_doubles();
  const std::int64_t heads = options.integer("heads", 1), window = options.integer("window", 0);
  const std::int64_t columns = in[0].dim(1), value_columns = in[2].dim(1);
  const std::int64_t d = columns / heads, e = value_columns / heads;
  const bool causal = options.text("mask", "causal") == "causal";
  const double scale =
      options.number("scale", 0) != 0 ? options.number("scale", 0) : 1 / std::sqrt(static_cast<double>(d));
  const double rate = options.number("dropout", 0);
  std::vector<double> out(v.size(), 0.0);

  for (std::size_t s = 0; s + 1 < bounds.size(); ++s) {
    const auto begin = static_cast<std::int64_t>(bounds[s]), end = static_cast<std::int64_t>(bounds[s + 1]);
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t i = begin; i < end; ++i) {
        std::vector<std::int64_t> seen;
        std::vector<double> p;
        for (std::int64_t j = begin; j < end; ++j) {
          if ((causal && j > i) || (window > 0 && std::abs(i - j) >= window)) continue;
          double score = 0;
          for (std::int64_t c = 0; c < d; ++c) {
            score += q[static_cast<std::size_t>(i * columns + h * d + c)] *
                     k[static_cast<std::size_t>(j * columns + h * d + c)];
          }
          seen.push_back(j);
          p.push_back(scale * score);
        }
        const double largest = *std::max_element(p.begin(), p.end());
        double sum = 0;
        for (double& each : p) sum += each = std::exp(each - largest);
        for (std::size_t n = 0; n < p.size(); ++n) {
          double weight = p[n] / sum;
          if (rate > 0) {
            std::uint16_t bits = 0;
            random_bits(options.key().fold_in(static_cast<std::uint64_t>(h)),
                        static_cast<std::uint64_t>(options.integer("first_row", 0) + i),
                        static_cast<std::uint64_t>(seen[n] - begin), 1, &bits);
            weight = bits >= std::round(rate * 65536) ? weight / (1 - rate) : 0;
          }
          for (std::int64_t c = 0; c < e; ++c) {
            out[static_cast<std::size_t>(i * value_columns + h * e + c)] +=
                weight * v[static_cast<std::size_t>(seen[n] * value_columns + h * e + c)];
          }
        }
      }
    }
  }
  return {Tensor::from(out, in[2].shape())};
}

}  // namespace

void add_softmax_attention_references(References& references) {
  references["softmax_attention"] = attention;
  references["softmax_attention_materialized"] = attention;
}

}  // namespace tally::testing
