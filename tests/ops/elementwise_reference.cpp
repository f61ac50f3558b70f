#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/ops/references.h"

namespace tally::testing {
namespace {

/// Value of an operand at an index of the broadcast result, by the definition: sizes of 1 stay at 0.
double broadcast_at(const Tensor& operand, const std::vector<double>& values, const std::vector<std::int64_t>& index) {
  std::int64_t offset = 0;
  const auto added = static_cast<int>(index.size()) - operand.rank();
  for (int d = 0; d < operand.rank(); ++d) {
    offset = offset * operand.dim(d) + (operand.dim(d) == 1 ? 0 : index[static_cast<std::size_t>(d + added)]);
  }
  return values[static_cast<std::size_t>(offset)];
}

template <class Function>
Tensor over_broadcast(std::span<const Tensor> operands, Function&& f) {
  int rank = 0;
  for (const Tensor& operand : operands) rank = std::max(rank, operand.rank());
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(rank), 1);
  for (const Tensor& operand : operands) {
    for (int d = 1; d <= operand.rank(); ++d) {
      if (operand.dim(-d) != 1) sizes[static_cast<std::size_t>(rank - d)] = operand.dim(-d);
    }
  }
  const Shape shape{std::span<const std::int64_t>(sizes)};
  std::vector<std::vector<double>> values;
  for (const Tensor& operand : operands) values.push_back(operand.to_doubles());
  std::vector<double> result;
  for (std::int64_t i = 0; i < shape.numel(); ++i) {
    std::vector<std::int64_t> index(sizes.size());
    std::int64_t rest = i;
    for (std::size_t d = sizes.size(); d-- > 0;) {
      index[d] = rest % sizes[d];
      rest /= sizes[d];
    }
    std::vector<double> arguments;
    for (std::size_t k = 0; k < operands.size(); ++k) arguments.push_back(broadcast_at(operands[k], values[k], index));
    result.push_back(f(arguments));
  }
  return Tensor::from(result, shape);
}

template <class Function>
Reference unary(Function f) {
  return [f](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    std::vector<double> values = in[0].to_doubles();
    for (double& value : values) value = f(value, options);
    return {Tensor::from(values, in[0].shape())};
  };
}

template <class Function>
Reference broadcast(Function f) {
  return
      [f](std::span<const Tensor> in, const ops::OpOptions&) -> std::vector<Tensor> { return {over_broadcast(in, f)}; };
}

/// A comparison: 1 where it holds, as u8.
template <class Function>
Reference comparison(Function f) {
  return [f](std::span<const Tensor> in, const ops::OpOptions&) -> std::vector<Tensor> {
    return {over_broadcast(in, [&](const std::vector<double>& v) { return f(v[0], v[1]) ? 1.0 : 0.0; }).to(DType::u8)};
  };
}

/// The error function by its series of positive terms, and far out by 1.
double error_function(double x) {
  if (std::abs(x) > 6) return x < 0 ? -1 : 1;
  const long double at = x;
  long double term = at, sum = at;
  for (int n = 1; n < 300; ++n) {
    term *= 2 * at * at / (2 * n + 1);
    sum += term;
  }
  return static_cast<double>(sum * std::exp(-at * at) * 2 / std::sqrt(std::acos(-1.0L)));
}

}  // namespace

void add_elementwise_references(References& references) {
  using Arguments = std::vector<double>;
  references["add"] = broadcast([](const Arguments& v) { return v[0] + v[1]; });
  references["subtract"] = broadcast([](const Arguments& v) { return v[0] - v[1]; });
  references["multiply"] = broadcast([](const Arguments& v) { return v[0] * v[1]; });
  references["divide"] = broadcast([](const Arguments& v) { return v[0] / v[1]; });
  references["where"] = broadcast([](const Arguments& v) { return v[0] != 0 ? v[1] : v[2]; });
  references["maximum"] = broadcast([](const Arguments& v) { return std::fmax(v[0], v[1]); });
  references["minimum"] = broadcast([](const Arguments& v) { return std::fmin(v[0], v[1]); });
  references["tensor_power"] = broadcast([](const Arguments& v) {
    return v[1] == 0 ? 1 : v[0] == 0 ? (v[1] < 0 ? HUGE_VAL : 0) : std::exp2(v[1] * std::log2(v[0]));
  });
  references["equal"] = comparison([](double a, double b) { return a == b; });
  references["not_equal"] =
      comparison([](double a, double b) { return a < b || a > b || std::isnan(a) || std::isnan(b); });
  references["less"] = comparison([](double a, double b) { return a < b; });
  references["less_equal"] = comparison([](double a, double b) { return a <= b; });
  references["greater"] = comparison([](double a, double b) { return a > b; });
  references["greater_equal"] = comparison([](double a, double b) { return a >= b; });
  using Options = ops::OpOptions;
  references["sign"] = unary([](double x, const Options&) { return x > 0 ? 1.0 : x < 0 ? -1.0 : x; });
  references["sin"] =
      unary([](double x, const Options&) { return static_cast<double>(std::sin(static_cast<long double>(x))); });
  references["cos"] =
      unary([](double x, const Options&) { return static_cast<double>(std::cos(static_cast<long double>(x))); });
  references["erf"] = unary([](double x, const Options&) { return error_function(x); });
  references["log1p"] =
      unary([](double x, const Options&) { return static_cast<double>(std::log(1 + static_cast<long double>(x))); });
  references["expm1"] =
      unary([](double x, const Options&) { return static_cast<double>(std::exp(static_cast<long double>(x)) - 1); });
  references["negate"] = unary([](double x, const Options&) { return -x; });
  references["abs"] = unary([](double x, const Options&) { return x < 0 ? -x : x; });
  references["exp"] = unary([](double x, const Options&) { return std::exp(x); });
  references["log"] = unary([](double x, const Options&) { return std::log(x); });
  references["square"] = unary([](double x, const Options&) { return x * x; });
  references["sqrt"] = unary([](double x, const Options&) { return std::sqrt(x); });
  references["tanh"] = unary([](double x, const Options&) { return std::tanh(x); });
  references["sigmoid"] =
      unary([](double x, const Options&) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); });
  references["relu"] = unary([](double x, const Options&) { return x > 0 ? x : 0; });
  references["gelu"] = unary([](double x, const Options&) { return x * 0.5 * (1 + std::erf(x / std::sqrt(2.0))); });
  references["silu"] = unary([](double x, const Options&) { return x / (1 + std::exp(-x)); });
  references["softplus"] = unary([](double x, const Options&) { return x > 700 ? x : std::log1p(std::exp(x)); });
  references["elu"] =
      unary([](double x, const Options& o) { return x > 0 ? x : o.number("alpha", 1) * (std::exp(x) - 1); });
  references["power"] = unary([](double x, const Options& o) { return std::pow(x, o.number("exponent", 1)); });
  references["clamp"] = unary([](double x, const Options& o) {
    return std::min(std::max(x, o.number("low", -std::numeric_limits<double>::infinity())),
                    o.number("high", std::numeric_limits<double>::infinity()));
  });
}

}  // namespace tally::testing
