// Linear regression from the smallest pieces: two parameters, a loss, its gradients, an optimizer.
#include <algorithm>
#include <cmath>
#include <iostream>

#include "tally/autograd/tape.h"
#include "tally/core/random.h"
#include "tally/nn/optim/optimizer.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/linear.h"
#include "tally/ops/tensor/reduce.h"

using namespace tally;

int main() {
  // What is to be found, and 256 noisy observations of it.
  const Tensor true_weight = Tensor::from({2.0f, -3.0f, 0.5f}, {1, 3}), true_bias = Tensor::from({1.5f}, {1});
  constexpr RngKey key{42};
  Tensor x({256, 3}), noise({256, 1});
  fill_normal(key.fold_in("x"), x, 0, 1);
  fill_normal(key.fold_in("noise"), noise, 0, 0.01);
  // No tape records here, so this is plain arithmetic: tensors are constants wherever a Var is wanted.
  const Tensor y = (ops::linear(x, true_weight, true_bias) + noise).value();

  // A parameter is a tensor with an identity. The optimizer keeps its state by the names given here.
  nn::Parameter weight(Tensor::zeros({1, 3})), bias(Tensor::zeros({1}));
  const nn::ParameterList parameters{{"weight", &weight}, {"bias", &bias}};
  optim::Adam adam({.learning_rate = 0.1});

  for (int step = 0; step <= 300; ++step) {
    // The function runs on a tape of its own. Gradients are a value: nothing has to be set to zero before the next
    // step.
    const auto [loss, gradients] =
        value_and_gradients([&] { return ops::mean(ops::square(ops::linear(x, weight, bias) - y)); });
    adam.step(parameters, gradients);
    if (step % 100 == 0) std::cout << "step " << step << "  loss " << loss.item() << '\n';
  }

  double worst = std::abs(bias.value().item() - true_bias.item());
  const auto found = weight.value().to_doubles(), wanted = true_weight.to_doubles();
  for (std::size_t i = 0; i < found.size(); ++i) worst = std::max(worst, std::abs(found[i] - wanted[i]));
  std::cout << "weight " << weight.value() << "\nbias " << bias.value() << "\nlargest error " << worst
            << " (must be below 0.01)\n";
  return worst < 0.01 ? 0 : 1;
}
