#include <cmath>
#include <limits>

#include "tests/ops/references.h"

namespace tally::testing {
namespace {

/// The logarithm of softmax over rows, from the definition, in long double.
std::vector<Tensor> log_softmax(const Tensor& x, bool exponentiate) {
  std::vector<double> y = x.to_doubles();
  const auto n = static_cast<std::size_t>(x.dim(-1));
  for (std::size_t begin = 0; begin < y.size(); begin += n) {
    long double largest = -std::numeric_limits<long double>::infinity(), sum = 0;
    for (std::size_t i = 0; i < n; ++i) largest = std::fmax(largest, static_cast<long double>(y[begin + i]));
    const bool nothing = std::isinf(largest);
    for (std::size_t i = 0; i < n; ++i) sum += nothing ? 0 : std::exp(y[begin + i] - largest);
    for (std::size_t i = 0; i < n; ++i) {
      const long double logarithm = nothing ? largest : y[begin + i] - largest - std::log(sum);
      y[begin + i] = static_cast<double>(exponentiate ? std::exp(logarithm) : logarithm);
    }
  }
  return {Tensor::from(y, x.shape())};
}

}  // namespace

void add_softmax_references(References& references) {
  references["softmax"] = [](std::span<const Tensor> in, const ops::OpOptions&) { return log_softmax(in[0], true); };
  references["log_softmax"] = [](std::span<const Tensor> in, const ops::OpOptions&) {
    return log_softmax(in[0], false);
  };
}

}  // namespace tally::testing
