#include <catch2/catch.hpp>

#include "tally/autograd/stages.h"
#include "tally/autograd/tape.h"
#include "tally/ops/elementwise/elementwise.h"

namespace second_derivatives_test {

using namespace tally;
using Catch::Matchers::Contains;

namespace {

Var cube(const Var& x) { return ops::square(x) * x; }

/// L = f'(x)^2 + x^2 of f = x^3: dL/dx = 36 x^3 + 2 x, 292 at 2, of which a constant f' would leave 4.
Var penalty(const Var& slope, const Var& x) { return ops::square(slope) + ops::square(x); }

}  // namespace

TEST_CASE("second derivatives are refused, as gradients are constants", "[second_derivatives]") {
  const Var x = Var::leaf(Tensor::full({1}, 2, DType::f64));
  CHECK_THROWS_WITH(value_and_gradients([&] {
                      const Var slope = value_and_gradients([&] { return cube(x); }).gradients[x];
                      return penalty(slope, x);
                    }),
                    Contains("[backward]") && Contains("no second derivatives") && Contains("Paused"));
  CHECK(Tape::current() == nullptr);

  const Stages stages{.shards = 1, .encode = [&](std::int64_t, std::span<const Var>) {
                        return ShardOutput{cube(x), {}};
                      }};
  CHECK_THROWS_WITH(value_and_gradients([&] { return penalty(run_stages(stages).gradients[x], x); }),
                    Contains("[stages]") && Contains("Paused"));
  CHECK(run_stages(stages).gradients[x].item() == 12);
}

TEST_CASE("what stands in for second derivatives gives them", "[second_derivatives]") {
  const Var x = Var::leaf(Tensor::full({1}, 2, DType::f64));
  // Constants on purpose.
  const auto stopped = value_and_gradients([&] {
    const Var slope = [&] {
      const Paused paused;
      return Var(value_and_gradients([&] { return cube(x); }).gradients[x]);
    }();
    return penalty(slope, x);
  });
  CHECK(stopped.value.item() == 148);
  CHECK(stopped.gradients[x].item() == 4);
  // The gradient written as ops.
  const auto written = value_and_gradients([&] { return penalty(ops::square(x) * 3, x); });
  CHECK(written.value.item() == 148);
  CHECK(written.gradients[x].item() == Approx(292).epsilon(1e-12));
  // Differences of gradients, along a direction.
  const auto gradient_at = [](double at) {
    const Var here = Var::leaf(Tensor::full({1}, at, DType::f64));
    return value_and_gradients([&] { return cube(here); }).gradients[here].item();
  };
  CHECK((gradient_at(2 + 1e-5) - gradient_at(2 - 1e-5)) / 2e-5 == Approx(12).epsilon(1e-9));
}

TEST_CASE("a tape that still records gives its own gradients", "[second_derivatives]") {
  Tape tape;
  const Recording on(tape);
  const Var x = tape.input(Tensor::full({1}, 2, DType::f64));
  CHECK(tape.backward(cube(x))[x].item() == 12);
}

}  // namespace second_derivatives_test
