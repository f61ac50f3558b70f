#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {
namespace {

/// Element (place, j) of a sequence: places below 0 are in `initial`, and zeros where there is none.
struct PaddedSequence {
  const Tensor &x, &initial;
  std::size_t sequence, first, before;

  double at(std::ptrdiff_t place, std::size_t j) const {
    const auto width = static_cast<std::size_t>(x.dim(1));
    if (place >= 0) return x.data<double>()[(first + static_cast<std::size_t>(place)) * width + j];
    if (!initial.defined()) return 0;
    const auto row = static_cast<std::size_t>(place + static_cast<std::ptrdiff_t>(before));
    return initial.data<double>()[(sequence * before + row) * width + j];
  }
};

}  // namespace

void add_convolution_references(References& references) {
  references["causal_conv1d"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::vector<double> weight = in[1].to_doubles(), bounds = in[4].to_doubles();
    const auto width = static_cast<std::size_t>(in[0].dim(1)), taps = static_cast<std::size_t>(in[1].dim(1));
    std::vector<double> y(static_cast<std::size_t>(in[0].numel()));
    for (std::size_t s = 0; s + 1 < bounds.size(); ++s) {
      const auto first = static_cast<std::size_t>(bounds[s]), last = static_cast<std::size_t>(bounds[s + 1]);
      const PaddedSequence rows{in[0], in[3], s, first, taps - 1};
      for (std::size_t t = first; t < last; ++t) {
        for (std::size_t j = 0; j < width; ++j) {
          double sum = in[2].defined() ? in[2].data<double>()[j] : 0;
          for (std::size_t back = 0; back < taps; ++back) {
            const auto place = static_cast<std::ptrdiff_t>(t - first) - static_cast<std::ptrdiff_t>(back);
            sum += weight[j * taps + taps - 1 - back] * rows.at(place, j);
          }
          y[t * width + j] = options.text("activation", "none") == "silu" ? sum / (1 + std::exp(-sum)) : sum;
        }
      }
    }
    return {Tensor::from(y, in[0].shape())};
  };
  references["last_rows"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::vector<double> bounds = in[2].to_doubles();
    const std::int64_t count = options.integer("count", 1), width = in[0].dim(1);
    std::vector<double> rows;
    for (std::size_t s = 0; s + 1 < bounds.size(); ++s) {
      const auto first = static_cast<std::size_t>(bounds[s]);
      const auto length = static_cast<std::ptrdiff_t>(bounds[s + 1] - bounds[s]);
      const PaddedSequence padded{in[0], in[1], s, first, static_cast<std::size_t>(count)};
      for (std::ptrdiff_t i = 0; i < count; ++i) {
        for (std::size_t j = 0; j < static_cast<std::size_t>(width); ++j)
          rows.push_back(padded.at(length - count + i, j));
      }
    }
    return {Tensor::from(rows, {in[2].numel() - 1, count, width})};
  };
}

}  // namespace tally::testing
