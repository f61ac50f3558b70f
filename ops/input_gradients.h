#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include "tally/autograd/tape.h"

namespace tally::ops::detail {

/// The gradients of a rule's first N inputs that are asked for, of the inputs' shapes, for a kernel to write.
template <std::size_t N>
class InputGradients {
 public:
  InputGradients(BackwardContext& context, const std::array<const Saved*, N>& inputs)
      : context_(context), inputs_(inputs) {}

  /// Where the gradient of input i goes, null where it is not asked for; its elements are not set.
  template <class T>
  T* of(std::size_t i) {
    if (!context_.needs(static_cast<int>(i))) return nullptr;
    if (!gradients_[i].defined()) gradients_[i] = Tensor(inputs_[i]->get().shape(), context_.cotangent().dtype());
    return gradients_[i].template mutable_data<T>();
  }
  /// The same, of zeros, for a kernel that adds or leaves rows out.
  template <class T>
  T* zeros_of(std::size_t i) {
    T* const gradient = of<T>(i);
    if (gradient != nullptr) std::fill_n(gradient, gradients_[i].numel(), T{0});
    return gradient;
  }

  void give() {
    for (std::size_t i = 0; i < N; ++i) {
      if (gradients_[i].defined()) context_.give(static_cast<int>(i), std::move(gradients_[i]));
    }
  }

 private:
  BackwardContext& context_;
  std::array<const Saved*, N> inputs_;
  std::array<Tensor, N> gradients_;
};

template <std::size_t N>
InputGradients<N> input_gradients(BackwardContext& context, const std::array<Saved, N>& inputs) {
  return [&]<std::size_t... I>(std::index_sequence<I...>) { return InputGradients<N>(context, {&inputs[I]...}); }
  (std::make_index_sequence<N>());
}
/// Of these inputs, in the rule's order.
template <class... S>
InputGradients<sizeof...(S)> input_gradients(BackwardContext& context, const S&... inputs) {
  return {context, {&inputs...}};
}

}  // namespace tally::ops::detail
