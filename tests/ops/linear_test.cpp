#include "tally/ops/tensor/linear.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "tally/autograd/tape.h"
#include "tally/core/memory.h"
#include "tally/core/simd.h"
#include "tally/ops/catalog.h"

namespace linear_test {

using namespace tally;
using ops::Activation;

namespace {

double exact(Activation activation, double x) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return x > 0 ? x : 0;
    case Activation::gelu:
      return x * std::erfc(-x / std::sqrt(2.0)) / 2;
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::tanh:
      return std::tanh(x);
    case Activation::sigmoid:
      return 1 / (1 + std::exp(-x));
  }
  return x;
}

constexpr Activation kAll[] = {Activation::none, Activation::relu, Activation::gelu,
                               Activation::silu, Activation::tanh, Activation::sigmoid};

/// The activation of each value, as the layer with weight 1 applies it.
Tensor applied(Activation activation, const Tensor& values) {
  return ops::linear(values.reshape({-1, 1}), Tensor::full({1, 1}, 1, values.dtype()), {}, {activation}).value();
}

}  // namespace

TEST_CASE("activations keep f32 accuracy over their range on every SIMD target", "[linear]") {
  std::vector<float> points;
  for (int i = -4000; i <= 4000; ++i) points.push_back(static_cast<float>(i) / 200);
  for (const float x : {1e-30f, -1e-30f, 1e-4f, -1e-4f, 60.f, -60.f, 1e4f, -1e4f, 1e30f, -1e30f}) points.push_back(x);
  const Tensor values = Tensor::from(points, {static_cast<std::int64_t>(points.size())});
  for (const std::string& target : simd_targets()) {
    set_simd_target(target);
    for (const Activation activation : kAll) {
      const std::vector<double> y = applied(activation, values).to_doubles();
      double worst = 0;
      for (std::size_t i = 0; i < y.size(); ++i) {
        const double expected = exact(activation, points[i]);
        worst = std::max(worst, std::fabs(y[i] - expected) / std::max(std::fabs(expected), 0.05));
      }
      INFO(target << " " << ops::name_of(activation));
      CHECK(worst < 2e-6);
    }
    set_simd_target("");
  }
}

TEST_CASE("activations pass NaN on and are finite at the ends", "[linear]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::string& target : simd_targets()) {
    set_simd_target(target);
    for (const Activation activation : kAll) {
      INFO(target << " " << ops::name_of(activation));
      CHECK(std::isnan(applied(activation, Tensor::from<float>({nan}, {1})).item()));
      CHECK(all_finite(applied(activation, Tensor::from<float>({-3e38f, 3e38f}, {2}))));
    }
    set_simd_target("");
  }
  CHECK(std::isnan(applied(Activation::relu, Tensor::from<double>({std::nan("")}, {1})).item()));
}

TEST_CASE("tiles of a large product join without seams", "[linear]") {
  // More rows than a tile has, more columns than a tile has, and neither a multiple.
  const Tensor x = ops::sample_normal({301, 3}, 1), w = ops::sample_normal({1037, 3}, 2),
               b = ops::sample_normal({1037}, 3);
  Tape tape;
  const Var vx = tape.input(x), vw = tape.input(w), vb = tape.input(b);
  Var y;
  {
    const Recording on(tape);
    y = ops::linear(vx, vw, vb, {Activation::relu});
  }
  const Tensor cotangent = ops::sample_normal(y.shape(), 4);
  const std::vector<double> px = x.to_doubles(), pw = w.to_doubles(), pb = b.to_doubles(), py = y.value().to_doubles(),
                            pg = cotangent.to_doubles();
  std::vector<double> gx(px.size()), gw(pw.size()), gb(pb.size());
  double worst = 0;
  for (std::size_t i = 0; i < 301; ++i) {
    for (std::size_t j = 0; j < 1037; ++j) {
      double z = pb[j];
      for (std::size_t k = 0; k < 3; ++k) z += px[3 * i + k] * pw[3 * j + k];
      worst = std::max(worst, std::fabs(py[1037 * i + j] - std::fmax(z, 0)));
      if (z <= 0) continue;
      gb[j] += pg[1037 * i + j];
      for (std::size_t k = 0; k < 3; ++k) {
        gx[3 * i + k] += pg[1037 * i + j] * pw[3 * j + k];
        gw[3 * j + k] += pg[1037 * i + j] * px[3 * i + k];
      }
    }
  }
  CHECK(worst < 1e-13);
  const Var outputs[] = {y};
  const Tensor cotangents[] = {cotangent};
  const Gradients gradients = tape.backward(outputs, cotangents);
  const auto compare = [](const Tensor& got, const std::vector<double>& expected) {
    const std::vector<double> values = got.to_doubles();
    REQUIRE(values.size() == expected.size());
    double difference = 0;
    for (std::size_t i = 0; i < values.size(); ++i)
      difference = std::max(difference, std::fabs(values[i] - expected[i]));
    CHECK(difference < 1e-10);
  };
  compare(gradients[vx], gx);
  compare(gradients[vw], gw);
  compare(gradients[vb], gb);
}

TEST_CASE("linear keeps no more than the slope needs", "[linear]") {
  const Tensor x = Tensor::zeros({1024, 64}), w = Tensor::zeros({64, 64});
  const auto kept_bytes = [&](Activation activation) {
    const MemoryScope scope;
    Tape tape;
    const Recording on(tape);
    const Var y = ops::linear(tape.input(x), w, {}, {activation});
    return scope.change() - static_cast<std::int64_t>(y.value().bytes());
  };
  CHECK(kept_bytes(Activation::none) < 4096);
  CHECK(kept_bytes(Activation::tanh) < 4096);
  CHECK(kept_bytes(Activation::relu) < 1024 * 8 + 4096);
  CHECK(kept_bytes(Activation::gelu) < 1024 * 64 * 4 + 4096);
  CHECK(kept_bytes(Activation::gelu) >= 1024 * 64 * 4);
}

}  // namespace linear_test
