// A layer of one's own is a struct that lists its members. Paths, saving, freezing and gradient checks follow from
// that.
#include <filesystem>
#include <iostream>

#include "tally/autograd/gradient_check.h"
#include "tally/nn/layers.h"
#include "tally/nn/optim/optimizer.h"
#include "tally/nn/serialize.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/reduce.h"

using namespace tally;

namespace {

/// Dauphin et al., arXiv 1612.08083: y = value(x) * sigmoid(gate(x)).
struct GatedLinear {
  nn::Linear value, gate;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("value", self.value);
    visit("gate", self.gate);
  }
  static GatedLinear make(const nn::LinearOptions& options, RngKey key) {
    return {nn::Linear::make(options, key.fold_in("value")), nn::Linear::make(options, key.fold_in("gate"))};
  }
  Var operator()(const Var& x) const { return value(x) * gate(x, ops::Activation::sigmoid); }
};

struct Model {
  std::vector<GatedLinear> layers;
  nn::Linear output;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("layers", self.layers);
    visit("output", self.output);
  }
  static Model make(RngKey key) {
    Model model{{}, nn::Linear::make({.in = 8, .out = 1}, key.fold_in("output"))};
    for (const RngKey layer_key : key.split(2))
      model.layers.push_back(GatedLinear::make({.in = 8, .out = 8}, layer_key));
    return model;
  }
  Var operator()(Var x) const {
    for (const GatedLinear& layer : layers) x = layer(x);
    return output(x);
  }
};

bool report(const char* promise, bool holds) {
  std::cout << (holds ? "yes  " : "NO   ") << promise << '\n';
  return holds;
}

}  // namespace

int main() {
  Model model = Model::make(RngKey{42});
  for (const auto& [path, parameter] : nn::parameters(model)) std::cout << path << ' ' << parameter->shape() << '\n';
  Tensor x({16, 8});
  fill_normal(RngKey{7}, x, 0, 1);

  // Gradients are checked in double. A copy has parameters of its own, so converting it leaves the model as it is.
  Model exact = model;
  nn::convert(exact, DType::f64);
  std::vector<CheckedLeaf> leaves;
  for (const auto& [path, parameter] : nn::parameters(exact))
    leaves.push_back({path, parameter->value(), parameter->id()});
  const GradientReport gradients = check_gradients([&] { return std::vector{exact(x.to(DType::f64))}; }, leaves);
  bool ok = report("every parameter's gradient agrees with its numeric derivative", gradients.passed());

  // Train the head alone: frozen parameters are constants.
  const int frozen = nn::freeze(model, "layers.*");
  std::cout << frozen << " parameters frozen\n";
  const Model before = model;
  optim::Adam adam({.learning_rate = 0.05});
  double first = 0, last = 0;
  for (int step = 0; step < 50; ++step) {
    const auto [loss, grads] = value_and_gradients([&] { return ops::mean(ops::square(model(x) - 1)); });
    adam.step(nn::parameters(model), grads);
    (step == 0 ? first : last) = loss.item();
  }
  std::cout << "loss " << first << " -> " << last << '\n';
  ok &= report("training the head lowers the loss", last < first);
  ok &= report("frozen layers keep their bits",
               frozen == 8 && identical(before.layers[0].gate.weight.value(), model.layers[0].gate.weight.value()));

  // Weights are saved by path as safetensors; a model of other shapes would be refused.
  const std::filesystem::path file = "own_layer.safetensors";
  nn::save(file, model);
  Model reloaded = Model::make(RngKey{1});
  nn::load(file, reloaded);
  std::filesystem::remove(file);
  ok &= report("a reloaded model computes the same bits", identical(model(x).value(), reloaded(x).value()));
  return ok ? 0 : 1;
}
