#include "tally/ops/recurrent/gru.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/ops/catalog.h"
#include "tally/ops/tensor/linear.h"

namespace gru_test {

using namespace tally;

namespace {

/// amplitude * sin(1.7 i + shift), which another program can draw too.
Tensor wave(const Shape& shape, double shift, double amplitude) {
  std::vector<float> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(amplitude * std::sin(static_cast<double>(i) * 1.7 + shift));
  return Tensor::from(values, shape);
}

struct Inputs {
  Tensor products, weight, bias, initial, cotangent;
  Offsets offsets;
};

Inputs random_inputs(const std::vector<std::int64_t>& lengths, std::int64_t width) {
  const std::int64_t rows = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  const auto count = static_cast<std::int64_t>(lengths.size());
  const auto normal = [](const Shape& shape, std::uint64_t stream, double deviation) {
    return ops::sample_normal(shape, stream, deviation).to(DType::f32);
  };
  return {normal({rows, 3 * width}, 1, 1), normal({3 * width, width}, 2, 0.2), normal({3 * width}, 3, 0.3),
          normal({count, width}, 4, 1),    normal({rows, width}, 5, 1),        Offsets::from_lengths(lengths)};
}

struct Results {
  Tensor y, products, initial;
};

Results run(const Inputs& in) {
  Tape tape;
  const Var products = tape.input(in.products), initial = tape.input(in.initial);
  Var y;
  {
    const Recording on(tape);
    y = ops::gru(products, in.weight, in.bias, initial, in.offsets);
  }
  const Tensor cotangent = in.cotangent;
  const Gradients gradients = tape.backward(std::span<const Var>(&y, 1), std::span<const Tensor>(&cotangent, 1));
  return {y.value(), gradients[products], gradients[initial]};
}

bool same_rows(const Tensor& all, std::int64_t begin, std::int64_t end, const Tensor& part) {
  return identical(all.slice(0, begin, end).contiguous(), part);
}

/// Root of the mean squared difference from a double computation, relative to that of its size.
double relative_error(const Tensor& got, const Tensor& exact) {
  const std::vector<double> a = got.to_doubles(), b = exact.to_doubles();
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference += (a[i] - b[i]) * (a[i] - b[i]), size += b[i] * b[i];
  return std::sqrt(difference / size);
}

}  // namespace

TEST_CASE("gradients in f32 stay close at a large width", "[gru]") {
  // PyTorch's are 1.4e-7 (inputs), 2.3e-7 (weight), 2.0e-7 (bias) and 1.9e-7 (initial states) off in such a case.
  constexpr std::int64_t kWidth = 256;
  const std::vector<std::int64_t> lengths(8, 50);
  const Offsets offsets = Offsets::from_lengths(lengths);
  const std::vector<Tensor> inputs{ops::sample_normal({400, 3 * kWidth}, 1),
                                   ops::sample_normal({3 * kWidth, kWidth}, 2, 1.0 / 16),
                                   ops::sample_normal({3 * kWidth}, 3, 0.1), ops::sample_normal({8, kWidth}, 4)};
  const Tensor cotangent = ops::sample_normal({400, kWidth}, 5);
  const auto gradients_in = [&](DType dtype) {
    Tape tape;
    std::vector<Var> leaves;
    // f32's own numbers in both.
    for (const Tensor& input : inputs) leaves.push_back(tape.input(input.to(DType::f32).to(dtype)));
    Var y;
    {
      const Recording on(tape);
      y = ops::gru(leaves[0], leaves[1], leaves[2], leaves[3], offsets);
    }
    const Tensor gy = cotangent.to(DType::f32).to(dtype);
    const Gradients gradients = tape.backward(std::span<const Var>(&y, 1), std::span<const Tensor>(&gy, 1));
    std::vector<Tensor> results{y.value()};
    for (const Var& leaf : leaves) results.push_back(gradients[leaf]);
    return results;
  };
  const std::vector<Tensor> exact = gradients_in(DType::f64), got = gradients_in(DType::f32);
  const double bounds[] = {1.4e-7, 2e-7, 3e-7, 2.6e-7, 2.5e-7};
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO("result " << i);
    CHECK(relative_error(got[i], exact[i]) <= bounds[i]);
  }
}

TEST_CASE("gru agrees with another runtime", "[gru]") {
  // States that ONNX Runtime 1.32 gives for its GRU with linear_before_reset = 1, torch.nn.GRU's form.
  const double expected[] = {-0.7881553,  -0.01540217, -0.5472712, -0.8875434,  -0.37601706,
                             -0.64644945, -0.90264213, -0.4473787, -0.70566666, -0.8762701,
                             -0.4657172,  -0.71138704, -0.7176292, -0.4611791,  -0.6821707};
  const std::int64_t width = 3, in = 4, steps = 5;
  const Var products =
      ops::linear(wave({steps, in}, 0.1, 1.5), wave({3 * width, in}, 0.2, 0.8), wave({3 * width}, 0.4, 0.5));
  const std::vector<double> states = ops::gru(products, wave({3 * width, width}, 0.3, 0.9), wave({3 * width}, 0.5, 0.6),
                                              wave({1, width}, 0.6, 1), Offsets::single(steps))
                                         .value()
                                         .to_doubles();
  REQUIRE(states.size() == std::size(expected));
  for (std::size_t i = 0; i < states.size(); ++i) CHECK(states[i] == Approx(expected[i]).margin(3e-7));
}

TEST_CASE("a sequence's states and gradients are the same bits alone and in company", "[gru]") {
  const std::vector<std::int64_t> lengths{5, 0, 70, 1, 33, 33, 2, 7, 7, 9, 12, 3, 0, 1, 40, 8, 8, 21, 6, 5};
  for (const std::int64_t width : {3, 16, 20, 64}) {
    const Inputs in = random_inputs(lengths, width);
    const Results all = run(in);
    for (std::int64_t i = 0; i < in.offsets.count(); ++i) {
      const std::int64_t begin = in.offsets.at(i), end = in.offsets.at(i + 1);
      const auto rows = [&](const Tensor& x) { return x.slice(0, begin, end).contiguous(); };
      const Results alone = run({rows(in.products), in.weight, in.bias, in.initial.slice(0, i, i + 1).contiguous(),
                                 rows(in.cotangent), Offsets::single(end - begin)});
      CHECK(same_rows(all.y, begin, end, alone.y));
      CHECK(same_rows(all.products, begin, end, alone.products));
      CHECK(same_rows(all.initial, i, i + 1, alone.initial));
    }
  }
}

TEST_CASE("gru step by step from the state before is the same bits as over the whole sequence", "[gru]") {
  const std::int64_t steps = 25, width = 24;
  const Inputs in = random_inputs({steps}, width);
  const Tensor whole = ops::gru(in.products, in.weight, in.bias, in.initial, in.offsets).value();
  Tensor state = in.initial;
  for (std::int64_t t = 0; t < steps; ++t) {
    state = ops::gru(in.products.slice(0, t, t + 1), in.weight, in.bias, state, Offsets::single(1)).value();
    CHECK(same_rows(whole, t, t + 1, state));
  }
}

}  // namespace gru_test
