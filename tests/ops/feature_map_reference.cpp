#include <algorithm>
#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {

void add_feature_map_references(References& references) {
  references["feature_map"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::vector<double> x = in[0].to_doubles();
    const std::string kind = options.text("kind", "elu");
    const std::int64_t heads = options.integer("heads", 1), rows = in[0].dim(0), d = in[0].dim(1) / heads;
    const auto elu = [](double a) { return a > 0 ? a : std::exp(a) - 1; };
    std::vector<double> y;
    for (auto row = x.begin(); row != x.end(); row += d) {
      const std::vector<double> part(row, row + d);
      if (kind == "relu") {
        for (const double a : part) y.push_back(a > 0 ? a : 0);
      } else if (kind == "elu") {
        for (const double a : part) y.push_back(elu(a) + 1);
      } else if (kind == "linrec") {
        double squares = 1e-12;
        for (const double a : part) squares += elu(a) * elu(a);
        for (const double a : part) y.push_back(elu(a) / std::sqrt(squares));
      } else if (kind == "unit") {
        double squares = 1e-6;
        for (const double a : part) squares += a * a;
        for (const double a : part) y.push_back(a / std::sqrt(squares));
      } else if (kind == "split_softmax") {
        double largest = 0, sum = 0;
        for (const double a : part) largest = std::max(largest, std::abs(a));
        for (const double a : part) sum += std::exp(a - largest) + std::exp(-a - largest);
        for (const double a : part) y.push_back(std::exp(a - largest) / sum);
        for (const double a : part) y.push_back(std::exp(-a - largest) / sum);
      } else {
        y.push_back(1);
        for (const double a : part) y.push_back(a);
        for (const double a : part) {
          for (const double b : part) y.push_back(a * b / std::sqrt(2.0));
        }
      }
    }
    const std::int64_t m = kind == "split_softmax" ? 2 * d : kind == "taylor2" ? 1 + d + d * d : d;
    return {Tensor::from(y, {rows, heads * m})};
  };
}

}  // namespace tally::testing
