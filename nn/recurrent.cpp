#include "tally/nn/recurrent.h"

#include <cmath>

#include "tally/nn/initializers.h"
#include "tally/ops/recurrent/gru.h"

namespace tally::nn {

Gru Gru::make(const GruOptions& options, RngKey key) {
  check<ValueError>(options.in > 0 && options.width > 0, "Gru", "needs sizes above 0; got in ", options.in, ", width ",
                    options.width);
  const double bound = 1 / std::sqrt(static_cast<double>(options.width));
  const std::int64_t gates = 3 * options.width;
  const auto drawn = [&](const Shape& shape, std::string_view name) {
    return Parameter(uniform(shape, bound, key.fold_in(name)));
  };
  return {.input = {drawn({gates, options.in}, "input_weight"), drawn({gates}, "input_bias")},
          .hidden_weight = drawn({gates, options.width}, "hidden_weight"),
          .hidden_bias = drawn({gates}, "hidden_bias")};
}

Var Gru::operator()(const Var& x, const Offsets& offsets, const Var& initial) const {
  return ops::gru(input(x), hidden_weight, hidden_bias, initial, offsets);
}

}  // namespace tally::nn
