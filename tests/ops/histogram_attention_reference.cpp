#include <algorithm>
#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {
namespace {

/// Attention token by token: per codebook, softmax over the rows seen of the inner product of their codewords with the
/// query's, with an ALiBi bias (arXiv 2108.12409) for decay. A soft assignment is a row with several codewords.
std::vector<Tensor> histogram_attention(std::span<const Tensor> in, const ops::OpOptions& options) {
  const std::vector<double> codes = in[0].to_doubles(), tables = in[2].to_doubles(), values = in[3].to_doubles();
  const std::vector<double> logits = in[1].defined() ? in[1].to_doubles() : std::vector<double>{};
  const std::vector<double> bounds = in[5].to_doubles();
  const double rate = in[4].defined() ? std::exp(in[4].item()) : 0;
  const std::int64_t codebooks = in[0].dim(1), words = in[2].dim(1), width = in[3].dim(1);
  const double scale =
      options.number("scale", 0) != 0 ? options.number("scale", 0) : 1 / std::sqrt(static_cast<double>(width));
  const bool causal = options.text("mask", "causal") == "causal", soft = options.text("assignment", "hard") == "soft";
  const std::int64_t window = options.integer("window", 0);
  std::vector<double> out(static_cast<std::size_t>(in[0].dim(0) * width), 0.0);
  struct Seen {
    std::int64_t word;
    double score, weight;
  };
  for (std::size_t s = 0; s + 1 < bounds.size(); ++s) {
    const auto begin = static_cast<std::int64_t>(bounds[s]), end = static_cast<std::int64_t>(bounds[s + 1]);
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t b = 0; b < codebooks; ++b) {
        const auto query = static_cast<std::int64_t>(codes[static_cast<std::size_t>(t * codebooks + b)]);
        std::vector<Seen> seen;
        for (std::int64_t j = begin; j < (causal ? t + 1 : end); ++j) {
          const auto distance = static_cast<double>(std::abs(t - j));
          if (window > 0 && std::abs(t - j) >= window) continue;
          const auto score = [&](std::int64_t w) {
            return scale * tables[static_cast<std::size_t>((b * words + query) * words + w)] - rate * distance;
          };
          if (!soft) {
            const auto w = static_cast<std::int64_t>(codes[static_cast<std::size_t>(j * codebooks + b)]);
            seen.push_back({w, score(w), 1});
            continue;
          }
          const double* x = logits.data() + (j * codebooks + b) * words;
          const double largest = *std::max_element(x, x + words);
          double sum = 0;
          for (std::int64_t w = 0; w < words; ++w) sum += std::exp(x[w] - largest);
          for (std::int64_t w = 0; w < words; ++w) seen.push_back({w, score(w), std::exp(x[w] - largest) / sum});
        }
        double largest = -HUGE_VAL, sum = 0;
        for (const Seen& each : seen) largest = std::max(largest, each.score);
        for (const Seen& each : seen) sum += each.weight * std::exp(each.score - largest);
        for (const Seen& each : seen) {
          const double p = each.weight * std::exp(each.score - largest) / sum;
          for (std::int64_t d = 0; d < width; ++d) {
            out[static_cast<std::size_t>(t * width + d)] +=
                p * values[static_cast<std::size_t>((b * words + each.word) * width + d)];
          }
        }
      }
    }
  }
  return {Tensor::from(out, {in[0].dim(0), width})};
}

}  // namespace

void add_histogram_attention_references(References& references) {
  references["histogram_attention"] = histogram_attention;
}

}  // namespace tally::testing
