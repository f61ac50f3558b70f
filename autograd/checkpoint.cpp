#include "tally/autograd/checkpoint.h"

namespace tally {
namespace {

struct CheckpointRule {
  static constexpr std::string_view name = "checkpoint";

  std::function<Var(std::span<const Var>)> f;
  std::vector<Saved> inputs;
  std::vector<bool> tracked;

  void backward(BackwardContext& context) const {
    Tape tape;
    std::vector<Var> again;
    again.reserve(inputs.size());
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (!inputs[i].kept()) {
        again.emplace_back();
      } else {
        again.push_back(tracked[i] ? tape.input(inputs[i].get()) : Var(inputs[i].get()));
      }
    }
    Var output;
    {
      const Recording on(tape);
      output = f(again);
    }
    const Tensor cotangent = context.cotangent();
    Gradients gradients = tape.backward(std::span(&output, 1), std::span(&cotangent, 1));
    for (std::size_t i = 0; i < again.size(); ++i) {
      if (tracked[i] && gradients.contains(again[i])) {
        Gradient gradient = gradients.take(again[i].leaf_id());
        context.give(static_cast<int>(i), to_dense(gradient));
      }
    }
    for (const auto& [leaf, gradient] : gradients) context.give_leaf(leaf, gradient);
  }
};

}  // namespace

Var checkpoint(std::function<Var(std::span<const Var>)> f, std::span<const Var> inputs) {
  Var output;
  {
    const Paused paused;
    std::vector<Var> constants;
    for (const Var& input : inputs) constants.push_back(input.detach());
    output = f(constants);
  }
  CheckpointRule rule{std::move(f), {}, {}};
  std::vector<const Var*> pointers;
  for (const Var& input : inputs) {
    rule.inputs.emplace_back(input.value());
    rule.tracked.push_back(input.tracked());
    pointers.push_back(&input);
  }
  std::vector<Tensor> outputs{output.value()};
  return record(std::move(rule), pointers, std::move(outputs), /*always=*/true)[0];
}

}  // namespace tally
