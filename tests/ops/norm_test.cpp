#include <catch2/catch.hpp>
#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/core/memory.h"
#include "tally/core/simd.h"
#include "tally/ops/catalog.h"
#include "tally/ops/norms/layer_norm.h"
#include "tally/ops/norms/residual_dropout_norm.h"
#include "tally/ops/norms/rms_norm.h"

namespace norm_test {

using namespace tally;

TEST_CASE("layer norm of published numbers", "[norm]") {
  // The row 1, 2, 3, 4: mean 2.5, variance 1.25.
  const Var y = ops::layer_norm(Tensor::from<double>({1, 2, 3, 4}, {1, 4}), {}, {}, {.epsilon = 0});
  const std::vector<double> expected{-1.3416407864998738, -0.4472135954999579, 0.4472135954999579, 1.3416407864998738};
  for (std::size_t i = 0; i < 4; ++i) CHECK(y.value().to_doubles()[i] == Approx(expected[i]).epsilon(1e-14));
  // The row 3, 4: mean of squares 12.5.
  const Var z = ops::rms_norm(Tensor::from<double>({3, 4}, {2}), {}, {.epsilon = 0});
  CHECK(z.value().to_doubles()[0] == Approx(3 / std::sqrt(12.5)).epsilon(1e-14));
}

namespace {

std::vector<double> gradient_at(const Tensor& x, const Tensor& cotangent) {
  Tape tape;
  const Var leaf = tape.input(x);
  Var y;
  {
    const Recording on(tape);
    y = ops::layer_norm(leaf);
  }
  const Var outputs[] = {y};
  const Tensor cotangents[] = {cotangent};
  return tape.backward(outputs, cotangents)[leaf].to_doubles();
}

}  // namespace

TEST_CASE("rows far from zero and constant rows keep their accuracy in f32", "[norm]") {
  // Steps of 1/64 around an offset that f32 holds exactly: the result must be that of the deviations alone.
  const std::int64_t columns = 300;
  Tensor near({1, columns}), far({1, columns});
  for (std::int64_t j = 0; j < columns; ++j) {
    const auto step = static_cast<float>(j * 37 % 101 - 50) / 64;
    near.mutable_data<float>()[j] = step;
    far.mutable_data<float>()[j] = 30000 + step;
  }
  for (const std::string& target : simd_targets()) {
    INFO(target);
    set_simd_target(target);
    const std::vector<double> expected = ops::layer_norm(near.to(DType::f64)).value().to_doubles();
    const std::vector<double> got = ops::layer_norm(far).value().to_doubles();
    double worst = 0;
    for (std::size_t j = 0; j < expected.size(); ++j) worst = std::max(worst, std::fabs(got[j] - expected[j]));
    CHECK(worst < 1e-6);
    const Tensor cotangent = ops::sample_normal({1, columns}, 1).to(DType::f32);
    const std::vector<double> exact = gradient_at(near.to(DType::f64), cotangent.to(DType::f64));
    const std::vector<double> gradient = gradient_at(far, cotangent);
    worst = 0;
    for (std::size_t j = 0; j < exact.size(); ++j) worst = std::max(worst, std::fabs(gradient[j] - exact[j]));
    CHECK(worst < 1e-5);
    for (const double value : ops::layer_norm(Tensor::full({1, columns}, 123456.7)).value().to_doubles()) {
      CHECK(std::fabs(value) < 1e-3);
    }
    set_simd_target("");
  }
}

TEST_CASE("the fused form equals its parts", "[norm]") {
  const Tensor x = ops::sample_normal({33, 21}, 1).to(DType::f32),
               residual = ops::sample_normal({33, 21}, 2).to(DType::f32);
  const Tensor weight = ops::sample_normal({21}, 3).to(DType::f32), bias = ops::sample_normal({21}, 4).to(DType::f32);
  const ops::DropoutOptions dropout{.rate = 0.3, .key = {5, 6}, .first_row = 77};
  const auto [normalized, sum] = ops::residual_dropout_norm(x, residual, weight, bias, {.dropout = dropout});
  Tensor expected = ops::dropout(x, dropout).value().clone();
  for (std::int64_t i = 0; i < expected.numel(); ++i) expected.mutable_data<float>()[i] += residual.data<float>()[i];
  CHECK(identical(sum.value(), expected));
  CHECK(identical(normalized.value(), ops::layer_norm(expected, weight, bias).value()));
}

TEST_CASE("the fused form's mask does not depend on sharding", "[norm]") {
  const Tensor x = ops::sample_normal({40, 70}, 1).to(DType::f32),
               residual = ops::sample_normal({40, 70}, 2).to(DType::f32);
  const auto run = [&](std::int64_t begin, std::int64_t end) {
    return ops::residual_dropout_norm(
        x.slice(0, begin, end).clone(), residual.slice(0, begin, end).clone(), {}, {},
        {.kind = ops::NormKind::rms,
         .dropout = {.rate = 0.5, .key = {1, 2}, .first_row = static_cast<std::uint64_t>(begin)}});
  };
  const auto [normalized, sum] = run(0, 40);
  const auto [part, part_sum] = run(13, 29);
  CHECK(identical(part.value(), normalized.value().slice(0, 13, 29).clone()));
  CHECK(identical(part_sum.value(), sum.value().slice(0, 13, 29).clone()));
}

TEST_CASE("each gradient is right when it is the only one wanted", "[norm]") {
  // Which inputs are tracked decides what is kept and which passes run; the numbers must not change.
  const std::vector<Tensor> values = {ops::sample_normal({37, 5}, 1), ops::sample_normal({37, 5}, 2),
                                      ops::sample_normal({5}, 3), ops::sample_normal({5}, 4)};
  const Tensor cotangents[] = {ops::sample_normal({37, 5}, 5), ops::sample_normal({37, 5}, 6)};
  const auto gradients = [&](unsigned tracked) {
    Tape tape;
    std::vector<Var> in;
    for (std::size_t i = 0; i < 4; ++i) in.push_back((tracked >> i & 1) != 0 ? tape.input(values[i]) : Var(values[i]));
    std::vector<Var> outputs;
    {
      const Recording on(tape);
      const auto [y, sum] =
          ops::residual_dropout_norm(in[0], in[1], in[2], in[3], {.dropout = {.rate = 0.4, .key = {7, 8}}});
      outputs = {y, sum};
    }
    const Gradients all = tape.backward(outputs, cotangents);
    std::vector<Tensor> result;
    for (const Var& var : in) result.push_back(var.is_leaf() ? all[var] : Tensor());
    return result;
  };
  const std::vector<Tensor> together = gradients(15);
  for (unsigned tracked = 1; tracked < 15; ++tracked) {
    const std::vector<Tensor> some = gradients(tracked);
    for (std::size_t i = 0; i < 4; ++i) {
      INFO(tracked << " " << i);
      if (!some[i].defined()) continue;
      const std::vector<double> a = some[i].to_doubles(), b = together[i].to_doubles();
      for (std::size_t j = 0; j < a.size(); ++j) CHECK(a[j] == Approx(b[j]).epsilon(1e-12).margin(1e-13));
    }
  }
}

TEST_CASE("the fused form keeps neither the mask nor the branch", "[norm]") {
  Tape tape;
  const Var residual = tape.input(Tensor::zeros({512, 64}));
  const std::int64_t rows = 512 * 64 * 4;
  const MemoryScope scope;
  {
    const Recording on(tape);
    const auto [y, sum] =
        ops::residual_dropout_norm(Tensor::zeros({512, 64}), residual, {}, {}, {.dropout = {.rate = 0.5}});
    // y, the sum, x (freed below) and three numbers a row.
    CHECK(scope.change() <= 2 * rows + 512 * 3 * 4 + 4096);
  }
  CHECK(scope.change() <= rows + 512 * 3 * 4 + 4096);
  CHECK(scope.change() >= rows);
}

}  // namespace norm_test
