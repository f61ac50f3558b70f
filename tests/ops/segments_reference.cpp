#include <functional>

#include "tests/ops/references.h"

namespace tally::testing {
namespace {

/// What a function makes of the column of each sequence; 0 of an empty one.
Reference of_columns(std::function<double(const std::vector<double>&)> f) {
  return [f](std::span<const Tensor> in, const ops::OpOptions&) -> std::vector<Tensor> {
    const std::vector<double> x = in[0].to_doubles(), bounds = in[1].to_doubles();
    const std::int64_t width = in[0].dim(1), sequences = in[1].numel() - 1;
    std::vector<double> result;
    for (std::int64_t i = 0; i < sequences; ++i) {
      for (std::int64_t j = 0; j < width; ++j) {
        std::vector<double> column;
        for (auto row = static_cast<std::int64_t>(bounds[static_cast<std::size_t>(i)]);
             row < static_cast<std::int64_t>(bounds[static_cast<std::size_t>(i) + 1]); ++row) {
          column.push_back(x[static_cast<std::size_t>(row * width + j)]);
        }
        result.push_back(column.empty() ? 0 : f(column));
      }
    }
    return {Tensor::from(result, {sequences, width})};
  };
}

double column_sum(const std::vector<double>& column) {
  double sum = 0;
  for (const double value : column) sum += value;
  return sum;
}

}  // namespace

void add_segments_references(References& references) {
  references["segment_sum"] = of_columns(column_sum);
  references["segment_mean"] =
      of_columns([](const std::vector<double>& c) { return column_sum(c) / static_cast<double>(c.size()); });
  references["segment_max"] = of_columns([](const std::vector<double>& c) {
    double largest = c[0];
    for (const double value : c) largest = value > largest ? value : largest;
    return largest;
  });
  references["segment_last"] = of_columns([](const std::vector<double>& c) { return c.back(); });
}

}  // namespace tally::testing
