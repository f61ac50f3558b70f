#pragma once

#include <functional>

#include "tally/autograd/tape.h"
#include "tally/core/simd.h"

namespace tally::testing {

/// Runs the body for every SIMD target of this machine.
template <class Body>
void on_each_target(Body&& body) {
  for (const std::string& target : simd_targets()) {
    set_simd_target(target);
    INFO("SIMD target " << target);
    body();
  }
  set_simd_target("");
}

inline Tensor gradient_of(const std::function<Var(const Var&)>& f, const Tensor& x, const Tensor& cotangent) {
  Tape tape;
  const Var input = tape.input(x);
  Var y;
  {
    const Recording on(tape);
    y = f(input);
  }
  return tape.backward(std::span(&y, 1), std::span(&cotangent, 1))[input];
}

inline Tensor gradient_of(const std::function<Var(const Var&)>& f, const Tensor& x) {
  return gradient_of(f, x, Tensor::full(x.shape(), 1, x.dtype()));
}

}  // namespace tally::testing
