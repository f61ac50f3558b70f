#include "tests/ops/references.h"

namespace tally::testing {

void add_local_mixing_references(References& references) {
  references["local_mixing"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::vector<double> w = in[0].to_doubles(), v = in[1].to_doubles(), bounds = in[2].to_doubles();
    const std::int64_t heads = options.integer("heads", 1), taps = in[0].dim(1) / heads, width = in[1].dim(1);
    std::vector<double> out(static_cast<std::size_t>(in[0].dim(0) * heads * width), 0.0);
    for (std::size_t s = 0; s + 1 < bounds.size(); ++s) {
      const auto begin = static_cast<std::int64_t>(bounds[s]), end = static_cast<std::int64_t>(bounds[s + 1]);
      for (std::int64_t t = begin; t < end; ++t) {
        for (std::int64_t i = 0; i < taps; ++i) {
          const std::int64_t seen = t + options.integer("ahead", 0) - i;
          if (seen < begin || seen >= end) continue;
          for (std::int64_t h = 0; h < heads; ++h) {
            for (std::int64_t x = 0; x < width; ++x) {
              out[static_cast<std::size_t>((t * heads + h) * width + x)] +=
                  w[static_cast<std::size_t>((t * heads + h) * taps + i)] *
                  v[static_cast<std::size_t>(seen * width + x)];
            }
          }
        }
      }
    }
    return {Tensor::from(out, {in[0].dim(0), heads * width})};
  };
}

}  // namespace tally::testing
