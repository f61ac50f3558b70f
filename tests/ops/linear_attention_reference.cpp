#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {

void add_linear_attention_references(References& references) {
  // ONNX's formulas, one row after the other.
  references["linear_attention"] = [](std::span<const Tensor> in,
                                      const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::vector<double> q = in[0].to_doubles(), k = in[1].to_doubles(), v = in[2].to_doubles(),
                              bounds = in[6].to_doubles();
    const auto rows = static_cast<std::size_t>(in[0].dim(0)),
               heads = static_cast<std::size_t>(options.integer("heads", 1));
    const std::size_t d = static_cast<std::size_t>(in[0].dim(1)) / heads,
                      memories = static_cast<std::size_t>(in[1].dim(1)) / d,
                      e = static_cast<std::size_t>(in[2].dim(1)) / memories;
    const bool delta = options.text("rule", "linear").find("delta") != std::string::npos,
               causal = options.text("mask", "causal") == "causal";
    const double asked = options.number("scale", 0), scale = asked == 0 ? 1 / std::sqrt(static_cast<double>(d)) : asked;
    const bool of_values = options.text("decay_along", "keys") == "values";
    const std::size_t channels = of_values ? e : d;
    // A gate of a row, memory and channel, whatever it is given for.
    const auto gate = [&](const Tensor& x, std::size_t t, std::size_t m, std::size_t c, double otherwise) {
      if (!x.defined()) return otherwise;
      const std::vector<double> all = x.to_doubles();
      if (x.rank() == 1) return all[m];
      const auto columns = static_cast<std::size_t>(x.dim(1));
      if (columns == 1) return all[t];
      return columns == memories ? all[t * memories + m] : all[(t * memories + m) * channels + c];
    };
    const std::size_t sequences = bounds.size() - 1;
    std::vector<double> output(rows * heads * e), states(sequences * memories * d * e);
    if (in[5].defined()) states = in[5].to_doubles();
    for (std::size_t s = 0; s < sequences; ++s) {
      const auto begin = static_cast<std::size_t>(bounds[s]), end = static_cast<std::size_t>(bounds[s + 1]);
      for (std::size_t h = 0; h < heads; ++h) {
        const std::size_t m = h / (heads / memories);
        // A copy: heads of a group read the same memory.
        std::vector<double> state(states.begin() + static_cast<std::ptrdiff_t>((s * memories + m) * d * e),
                                  states.begin() + static_cast<std::ptrdiff_t>((s * memories + m + 1) * d * e));
        const auto answer = [&](std::size_t t) {
          for (std::size_t j = 0; j < e; ++j) {
            for (std::size_t c = 0; c < d; ++c)
              output[(t * heads + h) * e + j] += scale * q[(t * heads + h) * d + c] * state[c * e + j];
          }
        };
        for (std::size_t t = begin; t < end; ++t) {
          for (std::size_t c = 0; c < d; ++c) {
            for (std::size_t j = 0; j < e; ++j) state[c * e + j] *= std::exp(gate(in[3], t, m, of_values ? j : c, 0));
          }
          for (std::size_t j = 0; j < e; ++j) {
            double written = v[(t * memories + m) * e + j];
            for (std::size_t c = 0; c < d && delta; ++c) written -= state[c * e + j] * k[(t * memories + m) * d + c];
            for (std::size_t c = 0; c < d; ++c)
              state[c * e + j] += gate(in[4], t, m, 0, 1) * k[(t * memories + m) * d + c] * written;
          }
          if (causal) answer(t);
        }
        for (std::size_t t = begin; t < end && !causal; ++t) answer(t);
        // The last head of a group leaves its memory's state.
        if ((h + 1) % (heads / memories) == 0)
          std::copy(state.begin(), state.end(),
                    states.begin() + static_cast<std::ptrdiff_t>((s * memories + m) * d * e));
      }
    }
    const auto of = [](std::size_t n) { return static_cast<std::int64_t>(n); };
    return {Tensor::from(output, {of(rows), of(heads * e)}),
            Tensor::from(states, {of(sequences), of(memories), of(d), of(e)})};
  };
}

}  // namespace tally::testing
