#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {

void add_lstm_references(References& references) {
  // torch.nn.LSTM's formula, one sequence, step and unit after the other.
  references["lstm"] = [](std::span<const Tensor> in, const ops::OpOptions&) -> std::vector<Tensor> {
    const std::vector<double> x = in[0].to_doubles(), w = in[1].to_doubles(), bounds = in[5].to_doubles();
    const auto width = static_cast<std::size_t>(in[1].dim(1));
    const std::vector<double> b = in[2].defined() ? in[2].to_doubles() : std::vector<double>(4 * width, 0.0);
    std::vector<double> states, cells;
    for (std::size_t s = 0; s + 1 < bounds.size(); ++s) {
      const auto first = [&](const Tensor& initial) {
        std::vector<double> row(width, 0.0);
        for (std::size_t j = 0; j < width && initial.defined(); ++j) row[j] = initial.to_doubles()[s * width + j];
        return row;
      };
      std::vector<double> h = first(in[3]), c = first(in[4]);
      for (auto t = static_cast<std::size_t>(bounds[s]); t < static_cast<std::size_t>(bounds[s + 1]); ++t) {
        const auto met = [&](std::size_t gate, std::size_t j) {
          const std::size_t unit = gate * width + j;
          double sum = x[t * 4 * width + unit] + b[unit];
          for (std::size_t k = 0; k < width; ++k) sum += w[unit * width + k] * h[k];
          return sum;
        };
        const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
        std::vector<double> next(width);
        for (std::size_t j = 0; j < width; ++j) {
          c[j] = sigmoid(met(1, j)) * c[j] + sigmoid(met(0, j)) * std::tanh(met(2, j));
          next[j] = sigmoid(met(3, j)) * std::tanh(c[j]);
        }
        h = next;
        states.insert(states.end(), h.begin(), h.end());
        cells.insert(cells.end(), c.begin(), c.end());
      }
    }
    const Shape shape{in[0].dim(0), in[1].dim(1)};
    return {Tensor::from(states, shape), Tensor::from(cells, shape)};
  };
}

}  // namespace tally::testing
