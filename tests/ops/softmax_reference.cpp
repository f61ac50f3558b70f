#include <cmath>
#include <limits>

#include "tests/ops/references.h"

namespace tally::testing {
namespace {

/// The logarithm of softmax over a dimension, from the definition, in long double.
std::vector<Tensor> log_softmax(const Tensor& x, std::int64_t dim, bool exponentiate) {
  std::vector<double> y = x.to_doubles();
  const auto n = static_cast<std::size_t>(x.dim(static_cast<int>(dim)));
  std::size_t step = 1;
  for (int d = static_cast<int>(dim < 0 ? dim + x.rank() : dim) + 1; d < x.rank(); ++d) {
    step *= static_cast<std::size_t>(x.dim(d));
  }
  for (std::size_t begin = 0; begin < y.size(); ++begin) {
    if (begin / step % n != 0) continue;
    long double largest = -std::numeric_limits<long double>::infinity(), sum = 0;
    const auto each = [&](std::size_t i) -> double& { return y[begin + i * step]; };
    for (std::size_t i = 0; i < n; ++i) largest = std::fmax(largest, static_cast<long double>(each(i)));
    const bool nothing = std::isinf(largest);
    for (std::size_t i = 0; i < n; ++i) sum += nothing ? 0 : std::exp(each(i) - largest);
    for (std::size_t i = 0; i < n; ++i) {
      const long double logarithm = nothing ? largest : each(i) - largest - std::log(sum);
      each(i) = static_cast<double>(exponentiate ? std::exp(logarithm) : logarithm);
    }
  }
  return {Tensor::from(y, x.shape())};
}

}  // namespace

void add_softmax_references(References& references) {
  references["softmax"] = [](std::span<const Tensor> in, const ops::OpOptions& options) {
    return log_softmax(in[0], options.integer("dim", -1), true);
  };
  references["log_softmax"] = [](std::span<const Tensor> in, const ops::OpOptions& options) {
    return log_softmax(in[0], options.integer("dim", -1), false);
  };
}

}  // namespace tally::testing
