#include "tally/ops/recurrent/causal_conv1d.h"

#include <catch2/catch.hpp>
#include <numeric>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/catalog.h"
#include "tally/ops/recurrent/convolution_state.h"
#include "tally/ops/recurrent/last_rows.h"
#include "tally/ops/tensor/shape.h"

namespace causal_conv1d_test {

using namespace tally;
using Catch::Matchers::Contains;

namespace {

struct Inputs {
  Tensor x, weight, bias, initial, cotangent, state_cotangent;
  Offsets offsets;
};

Inputs random_inputs(const std::vector<std::int64_t>& lengths, std::int64_t width, std::int64_t taps,
                     DType dtype = DType::f32) {
  const std::int64_t rows = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  const auto count = static_cast<std::int64_t>(lengths.size());
  const auto normal = [&](const Shape& shape, std::uint64_t stream) {
    return ops::sample_normal(shape, stream).to(dtype);
  };
  return {normal({rows, width}, 1),
          normal({width, taps}, 2),
          normal({width}, 3),
          normal({count, taps - 1, width}, 4),
          normal({rows, width}, 5),
          normal({count, taps - 1, width}, 6),
          Offsets::from_lengths(lengths)};
}

/// Rows and final state, and the gradients of their cotangents.
struct Results {
  Tensor y, state, x, weight, bias, initial;
};

/// Cut into pieces of `piece` rows, each of which begins with what the piece before left.
Results run(const Inputs& in, ops::Activation activation, std::int64_t piece) {
  Tape tape;
  const Var x = tape.input(in.x), weight = tape.input(in.weight), bias = tape.input(in.bias),
            initial = tape.input(in.initial);
  Var y, state = initial;
  {
    const Recording on(tape);
    std::vector<Var> parts;
    for (std::int64_t begin = 0; begin < in.x.dim(0); begin += piece) {
      const std::int64_t end = std::min(begin + piece, in.x.dim(0));
      const Var rows = ops::slice(x, 0, begin, end);
      const Offsets offsets = end - begin == in.x.dim(0) ? in.offsets : Offsets::single(end - begin);
      parts.push_back(ops::causal_conv1d(rows, weight, bias, state, offsets, activation));
      state = ops::last_rows(rows, state, offsets, in.weight.dim(1) - 1);
    }
    y = ops::concat(parts, 0);
  }
  const std::vector<Var> outputs{y, state};
  const std::vector<Tensor> cotangents{in.cotangent, in.state_cotangent};
  const Gradients gradients = tape.backward(outputs, cotangents);
  return {y.value(), state.value(), gradients[x], gradients[weight], gradients[bias], gradients[initial]};
}

void check_near(const Tensor& got, const Tensor& expected) {
  REQUIRE(got.shape() == expected.shape());
  const std::vector<double> a = got.to_doubles(), b = expected.to_doubles();
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).epsilon(1e-12).margin(1e-12));
}

bool same_rows(const Tensor& all, std::int64_t begin, std::int64_t end, const Tensor& part) {
  return identical(all.slice(0, begin, end).contiguous(), part);
}

}  // namespace

// The gradient of pieces shorter than the kernel is wrong elsewhere: flash-linear-attention, issue 1140.
TEST_CASE("a causal convolution in pieces, shorter ones than its kernel too, is the whole one", "[causal_conv1d]") {
  for (const ops::Activation activation : {ops::Activation::none, ops::Activation::silu}) {
    const Inputs in = random_inputs({11}, 3, 5, DType::f64);
    const Results whole = run(in, activation, 11);
    for (std::int64_t piece = 1; piece < 11; ++piece) {
      const Results cut = run(in, activation, piece);
      CHECK(identical(cut.y, whole.y));
      CHECK(identical(cut.state, whole.state));
      check_near(cut.x, whole.x);
      check_near(cut.weight, whole.weight);
      check_near(cut.bias, whole.bias);
      check_near(cut.initial, whole.initial);
    }
  }
}

// The weight's gradient of packed sequences is wrong elsewhere: flash-linear-attention, issue 955.
TEST_CASE("a sequence under a causal convolution is alone in company", "[causal_conv1d]") {
  const std::vector<std::int64_t> lengths{5, 0, 70, 1, 2, 3, 64, 0, 130, 1, 1, 9};
  for (const std::int64_t width : {3, 20}) {
    const Inputs in = random_inputs(lengths, width, 4, DType::f64);
    const Results all = run(in, ops::Activation::silu, in.x.dim(0));
    Tensor weight = Tensor::zeros(in.weight.shape(), DType::f64);
    for (std::int64_t i = 0; i < in.offsets.count(); ++i) {
      const std::int64_t begin = in.offsets.at(i), end = in.offsets.at(i + 1);
      if (begin == end) continue;
      const auto rows = [&](const Tensor& x) { return x.slice(0, begin, end).contiguous(); };
      const auto sequence = [&](const Tensor& x) { return x.slice(0, i, i + 1).contiguous(); };
      const Results alone = run({rows(in.x), in.weight, in.bias, sequence(in.initial), rows(in.cotangent),
                                 sequence(in.state_cotangent), Offsets::single(end - begin)},
                                ops::Activation::silu, end - begin);
      CHECK(same_rows(all.y, begin, end, alone.y));
      CHECK(same_rows(all.state, i, i + 1, alone.state));
      CHECK(same_rows(all.x, begin, end, alone.x));
      CHECK(same_rows(all.initial, i, i + 1, alone.initial));
      for (std::int64_t j = 0; j < weight.numel(); ++j) {
        weight.mutable_data<double>()[j] += alone.weight.data<double>()[j];
      }
    }
    check_near(all.weight, weight);
  }
}

TEST_CASE("a causal convolution event by event is the same bits as over the whole sequence", "[causal_conv1d]") {
  for (const std::int64_t taps : {1, 2, 4, 40}) {
    for (const ops::Activation activation : {ops::Activation::none, ops::Activation::silu}) {
      const Inputs in = random_inputs({60}, 19, taps);
      const Tensor whole = ops::causal_conv1d(in.x, in.weight, in.bias, {}, in.offsets, activation).value();
      const ops::ConvolutionReader reader(in.weight, in.bias, activation);
      ops::ConvolutionState state = reader.initial_state();
      Tensor output({1, 19});
      for (std::int64_t t = 0; t < 60; ++t) {
        const ops::ConvolutionState before = state;
        reader.step(state, in.x.slice(0, t, t + 1).span<float>(), output.mutable_span<float>());
        CHECK(same_rows(whole, t, t + 1, output));
        // A state is a value: the copy answers alike.
        ops::ConvolutionState copy = before;
        Tensor again({1, 19});
        reader.step(copy, in.x.slice(0, t, t + 1).span<float>(), again.mutable_span<float>());
        CHECK(copy == state);
        CHECK(identical(again, output));
      }
      const Tensor last = ops::last_rows(in.x, {}, in.offsets, taps - 1).value();
      CHECK(std::vector<float>(last.data<float>(), last.data<float>() + last.numel()) == state.rows);
    }
  }
}

TEST_CASE("a state of a convolution refuses what is not its own", "[causal_conv1d]") {
  const Inputs in = random_inputs({3}, 4, 3);
  const ops::ConvolutionReader reader(in.weight, in.bias);
  ops::ConvolutionState state = reader.initial_state();
  std::vector<float> row(4, 1.0f), output(4);
  reader.step(state, row, output);
  const ops::ConvolutionState before = state;
  row[2] = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH(reader.step(state, row, output), Contains("needs a finite row; got inf in column 2"));
  CHECK(state == before);
  CHECK_THROWS_AS(reader.step(state, std::vector<float>(3), output), ShapeError);
  ops::ConvolutionState other = ops::ConvolutionReader(random_inputs({3}, 4, 5).weight, {}).initial_state();
  CHECK_THROWS_WITH(reader.step(other, std::vector<float>(4), output), Contains("needs a state of width 4 and 3 taps"));
  CHECK_THROWS_AS(ops::ConvolutionReader(in.weight.to(DType::f64), {}), DTypeError);
  CHECK_THROWS_AS(ops::ConvolutionReader(in.weight, Tensor({3})), ShapeError);
  CHECK_THROWS_AS(ops::ConvolutionReader(in.weight, {}, ops::Activation::gelu), ValueError);
}

TEST_CASE("gradients of a long causal convolution are the same bits on any number of threads", "[causal_conv1d]") {
  const int threads = num_threads();
  const Inputs in = random_inputs({1000, 3, 45'000, 2, 1}, 5, 4);
  set_num_threads(1);
  const Results one = run(in, ops::Activation::silu, in.x.dim(0));
  for (const int many : {2, 7}) {
    set_num_threads(many);
    const Results got = run(in, ops::Activation::silu, in.x.dim(0));
    CHECK(identical(got.y, one.y));
    CHECK(identical(got.x, one.x));
    CHECK(identical(got.weight, one.weight));
    CHECK(identical(got.bias, one.bias));
    CHECK(identical(got.initial, one.initial));
  }
  set_num_threads(threads);
  CHECK(all_finite(one.weight));
}

}  // namespace causal_conv1d_test
