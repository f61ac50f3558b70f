#include <algorithm>
#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {

void add_position_softmax_references(References& references) {
  references["position_softmax_attention"] = [](std::span<const Tensor> in,
                                                const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::vector<double> q = in[0].to_doubles(), k = in[1].to_doubles(), v = in[2].to_doubles(),
                              bounds = in[3].to_doubles();
    const auto heads = static_cast<std::size_t>(options.integer("heads", 1));
    const auto of_keys = static_cast<std::size_t>(options.integer("key_heads", 0));
    const std::size_t key_heads = of_keys == 0 ? heads : of_keys;
    const auto columns = static_cast<std::size_t>(in[0].dim(1)), key_columns = static_cast<std::size_t>(in[1].dim(1)),
               value_columns = static_cast<std::size_t>(in[2].dim(1));
    const std::size_t d = columns / heads, e = value_columns / key_heads;
    const bool causal = options.text("mask", "causal") == "causal";
    std::vector<double> out(q.size() / std::max<std::size_t>(columns, 1) * heads * e, 0.0);
    for (std::size_t s = 0; s + 1 < bounds.size(); ++s) {
      const auto begin = static_cast<std::size_t>(bounds[s]), end = static_cast<std::size_t>(bounds[s + 1]);
      for (std::size_t i = begin; i < end; ++i) {
        const std::size_t seen = causal ? i + 1 : end;
        for (std::size_t h = 0; h < heads; ++h) {
          const std::size_t key_head = h / (heads / key_heads);
          for (std::size_t c = 0; c < d; ++c) {
            const auto key = [&](std::size_t j) { return k[j * key_columns + key_head * d + c]; };
            double largest = key(begin), total = 0;
            for (std::size_t j = begin; j < seen; ++j) largest = std::max(largest, key(j));
            for (std::size_t j = begin; j < seen; ++j) total += std::exp(key(j) - largest);
            for (std::size_t j = begin; j < seen; ++j) {
              const double weight = q[i * columns + h * d + c] * std::exp(key(j) - largest) / total;
              for (std::size_t x = 0; x < e; ++x)
                out[(i * heads + h) * e + x] += weight * v[j * value_columns + key_head * e + x];
            }
          }
        }
      }
    }
    return {Tensor::from(out, {in[0].dim(0), static_cast<std::int64_t>(heads * e)})};
  };
}

}  // namespace tally::testing
