#pragma once

#include <catch2/catch.hpp>
#include <vector>

#include "tally/autograd/gradient_check.h"
#include "tally/nn/module.h"

namespace tally::testing {

/// Checks the gradients of a module's parameters and of its input in double, `deviation` off its initial weights.
template <class M, class F>
void check_module(M& module, const Tensor& input, F&& forward, double deviation = 0.1) {
  nn::convert(module, DType::f64);
  // Biases begin at zero and norm weights at one: move them off these special points.
  std::uint64_t stream = 100;
  for (const auto& [path, parameter] : nn::parameters(module)) {
    Tensor noise(parameter->shape(), DType::f64);
    fill_normal(RngKey{6, stream++}, noise, 0, deviation);
    auto values = parameter->mutable_value().template mutable_span<double>();
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += noise.data<double>()[i];
  }
  const Var x = Var::leaf(input);
  std::vector<CheckedLeaf> leaves{{"input", input, x.leaf_id()}};
  for (const auto& [path, parameter] : nn::parameters(module))
    leaves.push_back({path, parameter->value(), parameter->id()});
  const GradientReport report = check_gradients([&] { return std::vector<Var>{forward(x)}; }, leaves);
  for (const LeafReport& leaf : report.leaves) {
    INFO(leaf.name << ": " << leaf.hint << " scaled error " << leaf.max_scaled);
    CHECK(leaf.verdict == GradientVerdict::ok);
  }
}

}  // namespace tally::testing
