#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {

void add_rotary_references(References& references) {
  references["rotary"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    std::vector<std::int64_t> positions;
    if (in[1].defined()) {
      positions.assign(in[1].data<std::int64_t>(), in[1].data<std::int64_t>() + in[1].numel());
    } else {
      for (std::int64_t s = 0; s + 1 < in[2].numel(); ++s) {
        const std::int64_t length = in[2].data<std::int64_t>()[s + 1] - in[2].data<std::int64_t>()[s];
        for (std::int64_t t = 0; t < length; ++t) {
          positions.push_back(t + (in[3].defined() ? in[3].data<std::int64_t>()[s] : 0));
        }
      }
    }
    const std::int64_t heads = options.integer("heads", 1), columns = in[0].dim(1), head = columns / heads;
    std::int64_t turned = options.integer("rotary_width", 0) == 0 ? head : options.integer("rotary_width", 0);
    if (in[4].defined()) turned = 2 * in[4].dim(1);
    std::vector<double> y = in[0].to_doubles();
    const std::vector<double> x = y;
    for (std::int64_t t = 0; t < in[0].dim(0); ++t) {
      const std::int64_t position = positions[static_cast<std::size_t>(t)];
      for (std::int64_t i = 0; i < turned / 2; ++i) {
        // In extended precision: the angle of a far position has few digits left behind the point.
        const long double angle = static_cast<long double>(position) *
                                  std::pow(static_cast<long double>(options.number("base", 10000)),
                                           -2 * static_cast<long double>(i) / static_cast<long double>(turned));
        double cosine = static_cast<double>(std::cos(angle)), sine = static_cast<double>(std::sin(angle));
        if (in[4].defined()) {
          cosine = in[4].data<double>()[position * (turned / 2) + i];
          sine = in[5].data<double>()[position * (turned / 2) + i];
        }
        const bool interleaved = options.text("pairs", "halves") == "interleaved";
        for (std::int64_t h = 0; h < heads; ++h) {
          const std::int64_t from = t * columns + h * head;
          const auto a = static_cast<std::size_t>(from + (interleaved ? 2 * i : i));
          const auto b = static_cast<std::size_t>(from + (interleaved ? 2 * i + 1 : turned / 2 + i));
          y[a] = x[a] * cosine - x[b] * sine;
          y[b] = x[a] * sine + x[b] * cosine;
        }
      }
    }
    return {Tensor::from(y, in[0].shape())};
  };
}

}  // namespace tally::testing
