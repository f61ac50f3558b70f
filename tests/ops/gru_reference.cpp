#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {

void add_gru_references(References& references) {
  // torch.nn.GRU's formula, and that of the paper, one sequence, step and unit after the other.
  references["gru"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const bool after = options.flag("linear_before_reset", true);
    const std::vector<double> x = in[0].to_doubles(), w = in[1].to_doubles(), bounds = in[4].to_doubles();
    const auto width = static_cast<std::size_t>(in[1].dim(1));
    const std::vector<double> b = in[2].defined() ? in[2].to_doubles() : std::vector<double>(3 * width, 0.0);
    const std::vector<double> first = in[3].defined() ? in[3].to_doubles() : std::vector<double>();
    std::vector<double> out;
    for (std::size_t s = 0; s + 1 < bounds.size(); ++s) {
      std::vector<double> h(width, 0.0);
      for (std::size_t j = 0; j < width && !first.empty(); ++j) h[j] = first[s * width + j];
      for (auto t = static_cast<std::size_t>(bounds[s]); t < static_cast<std::size_t>(bounds[s + 1]); ++t) {
        const auto hidden = [&](std::size_t unit, const std::vector<double>& state) {
          double sum = b[unit];
          for (std::size_t k = 0; k < width; ++k) sum += w[unit * width + k] * state[k];
          return sum;
        };
        const auto gate = [&](std::size_t unit) {
          return 1 / (1 + std::exp(-(x[t * 3 * width + unit] + hidden(unit, h))));
        };
        std::vector<double> next(width), left(width);
        for (std::size_t j = 0; j < width; ++j) left[j] = gate(j) * h[j];
        for (std::size_t j = 0; j < width; ++j) {
          const double r = gate(j), z = gate(width + j);
          const double met = after ? r * hidden(2 * width + j, h) : hidden(2 * width + j, left);
          const double n = std::tanh(x[t * 3 * width + 2 * width + j] + met);
          next[j] = (1 - z) * n + z * h[j];
        }
        h = next;
        out.insert(out.end(), h.begin(), h.end());
      }
    }
    return {Tensor::from(out, {in[0].dim(0), in[1].dim(1)})};
  };
}

}  // namespace tally::testing
