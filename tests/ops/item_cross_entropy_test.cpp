#include "tally/ops/losses/item_cross_entropy.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "tally/autograd/tape.h"
#include "tally/core/memory.h"
#include "tally/core/parallel.h"
#include "tally/ops/catalog.h"

namespace tally::item_cross_entropy_test {
namespace {

struct Expected {
  double loss = 0;
  std::vector<double> x, table, bias;
};

/// Loss and gradients from the formulas, in double, one token after the other.
Expected expected(const Tensor& x, const Tensor& table, const std::vector<double>& bias,
                  const std::vector<std::int64_t>& targets, const std::vector<double>& weights) {
  const auto width = static_cast<std::size_t>(x.dim(1)), items = static_cast<std::size_t>(table.dim(0));
  const std::vector<double> vx = x.to_doubles(), ve = table.to_doubles();
  Expected result{0, std::vector<double>(vx.size()), std::vector<double>(ve.size()), std::vector<double>(items)};
  std::vector<double> p(items);
  for (std::size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] < 0) continue;
    const auto target = static_cast<std::size_t>(targets[t]);
    double sum = 0;
    for (std::size_t i = 0; i < items; ++i) {
      double score = bias[i];
      for (std::size_t d = 0; d < width; ++d) score += vx[t * width + d] * ve[i * width + d];
      sum += p[i] = std::exp(score);
    }
    result.loss -= weights[t] * std::log(p[target] / sum);
    for (std::size_t i = 0; i < items; ++i) {
      const double g = weights[t] * (p[i] / sum - (i == target ? 1 : 0));
      result.bias[i] += g;
      for (std::size_t d = 0; d < width; ++d) {
        result.x[t * width + d] += g * ve[i * width + d];
        result.table[i * width + d] += g * vx[t * width + d];
      }
    }
  }
  return result;
}

double largest_error(const Tensor& got, const std::vector<double>& wanted) {
  const std::vector<double> values = got.to_doubles();
  REQUIRE(values.size() == wanted.size());
  double error = 0, scale = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    error = std::max(error, std::abs(values[i] - wanted[i]));
    scale = std::max(scale, std::abs(wanted[i]));
  }
  return error / scale;
}

std::vector<std::int64_t> some_targets(std::int64_t tokens, std::int64_t items) {
  std::vector<std::int64_t> targets(static_cast<std::size_t>(tokens));
  for (std::int64_t t = 0; t < tokens; ++t) targets[static_cast<std::size_t>(t)] = t % 5 == 3 ? -1 : t * 7919 % items;
  return targets;
}

void check_against_formulas(std::int64_t tokens, std::int64_t items, std::int64_t width, DType dtype,
                            double tolerance) {
  const Tensor x = ops::sample_normal({tokens, width}, 1).to(dtype),
               table = ops::sample_normal({items, width}, 2).to(dtype);
  const Tensor bias = ops::sample_normal({items}, 3).to(dtype);
  const std::vector<std::int64_t> targets = some_targets(tokens, items);
  const Tensor weights = Tensor::full({tokens}, 0.5, dtype);
  const Expected wanted =
      expected(x, table, bias.to_doubles(), targets, std::vector<double>(targets.size(), 0.5 * -3.0));
  Tape tape;
  const Var vx = tape.input(x), ve = tape.input(table), vb = tape.input(bias);
  Var loss;
  {
    const Recording on(tape);
    loss = ops::item_cross_entropy(vx, ve, Tensor::from(targets, {tokens}), {.bias = vb, .weights = weights});
  }
  CHECK(loss.item() * -3 == Approx(wanted.loss).epsilon(tolerance));
  // A cotangent other than 1: the kept gradients are scaled.
  const std::vector<Var> outputs{loss};
  const std::vector<Tensor> cotangents{Tensor::scalar(-3, dtype)};
  const Gradients gradients = tape.backward(outputs, cotangents);
  CHECK(largest_error(gradients[vx], wanted.x) < tolerance);
  CHECK(largest_error(gradients[ve], wanted.table) < tolerance);
  CHECK(largest_error(gradients[vb], wanted.bias) < tolerance);
}

TEST_CASE("item cross-entropy and its gradients follow the formulas", "[item_cross_entropy]") {
  check_against_formulas(300, 1100, 3, DType::f64, 1e-11);
  check_against_formulas(300, 1100, 3, DType::f32, 2e-6);
}

TEST_CASE("item cross-entropy sums groups of many token tiles", "[item_cross_entropy]") {
  check_against_formulas(11000, 5, 2, DType::f64, 1e-11);
  check_against_formulas(11000, 5, 2, DType::f32, 3e-6);
}

TEST_CASE("item cross-entropy over a table that is folded in parts and recomputed", "[item_cross_entropy]") {
  check_against_formulas(70, 70000, 2, DType::f64, 1e-11);
  check_against_formulas(140, 70000, 2, DType::f32, 3e-6);
}

TEST_CASE("item cross-entropy gives the gradients that are wanted", "[item_cross_entropy]") {
  const Tensor x = ops::sample_normal({4, 3}, 1), table = ops::sample_normal({6, 3}, 2),
               bias = ops::sample_normal({6}, 3);
  const Tensor targets = Tensor::from<std::int64_t>({5, -1, 0, 5}, {4});
  for (int subset = 1; subset < 8; ++subset) {
    const Var vx = subset & 1 ? Var::leaf(x) : Var(x), ve = subset & 2 ? Var::leaf(table) : Var(table);
    const Var vb = subset & 4 ? Var::leaf(bias) : Var(bias);
    Tape tape;
    Var loss;
    {
      const Recording on(tape);
      loss = ops::item_cross_entropy(vx, ve, targets, {.bias = vb});
    }
    const Gradients gradients = tape.backward(loss);
    const Expected wanted = expected(x, table, bias.to_doubles(), {5, -1, 0, 5}, {1, 1, 1, 1});
    CHECK(gradients.size() == static_cast<std::size_t>((subset & 1) + (subset >> 1 & 1) + (subset >> 2)));
    if (subset & 1) CHECK(largest_error(gradients[vx], wanted.x) < 1e-12);
    if (subset & 2) CHECK(largest_error(gradients[ve], wanted.table) < 1e-12);
    if (subset & 4) CHECK(largest_error(gradients[vb], wanted.bias) < 1e-12);
  }
}

TEST_CASE("item cross-entropy gives the same bits with and without a tape and on any number of threads",
          "[item_cross_entropy]") {
  const int threads = num_threads();
  for (const std::int64_t items : {1300, 70000}) {
    const Tensor x = ops::sample_normal({150, 4}, 1).to(DType::f32),
                 table = ops::sample_normal({items, 4}, 2).to(DType::f32);
    const Tensor targets = Tensor::from(some_targets(150, items), {150});
    std::vector<Tensor> losses, dx, dtable;
    for (const int count : {1, 2, 8}) {
      set_num_threads(count);
      const Var vx = Var::leaf(x), ve = Var::leaf(table);
      auto [loss, gradients] = value_and_gradients([&] { return ops::item_cross_entropy(vx, ve, targets); });
      losses.push_back(loss);
      dx.push_back(gradients[vx]);
      dtable.push_back(gradients[ve]);
    }
    set_num_threads(threads);
    const double alone = ops::item_cross_entropy(x, table, targets).item();
    for (std::size_t i = 1; i < losses.size(); ++i) {
      CHECK(identical(losses[0], losses[i]));
      CHECK(identical(dx[0], dx[i]));
      CHECK(identical(dtable[0], dtable[i]));
    }
    CHECK(alone == Approx(losses[0].item()).epsilon(1e-6));
  }
}

TEST_CASE("item cross-entropy keeps far less than the scores", "[item_cross_entropy]") {
  const std::int64_t tokens = 2048, items = 54542, width = 8;
  const Tensor x = ops::sample_normal({tokens, width}, 1).to(DType::f32);
  const Tensor table = ops::sample_normal({items, width}, 2).to(DType::f32);
  const Tensor targets = Tensor::from(some_targets(tokens, items), {tokens});
  const std::int64_t gradients = static_cast<std::int64_t>(x.bytes() + table.bytes());
  {
    const MemoryScope scope;
    ops::item_cross_entropy(x, table, targets);
    CHECK(scope.peak() < 4 << 20);
  }
  const Var vx = Var::leaf(x), ve = Var::leaf(table);
  Tape tape;
  const Recording on(tape);
  const MemoryScope scope;
  const Var loss = ops::item_cross_entropy(vx, ve, targets);
  // The scores would be 447 MB.
  CHECK(scope.peak() < gradients + (24 << 20));
  CHECK(scope.change() < gradients + gradients / 4);
}

TEST_CASE("item cross-entropy with extreme and impossible scores", "[item_cross_entropy]") {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (const DType dtype : {DType::f32, DType::f64}) {
    const auto loss_and_finite = [&](const Tensor& x, const Tensor& table, const Tensor& bias, std::int64_t target) {
      const Var vx = Var::leaf(x.to(dtype)), ve = Var::leaf(table.to(dtype));
      const Var vb = bias.defined() ? Var(bias.to(dtype)) : Var();
      auto [loss, gradients] = value_and_gradients(
          [&] { return ops::item_cross_entropy(vx, ve, Tensor::from<std::int64_t>({target}, {1}), {.bias = vb}); });
      return std::pair(loss.item(), all_finite(gradients[vx]) && all_finite(gradients[ve]));
    };
    const Tensor one = Tensor::full({1, 1}, 1, DType::f64), table = Tensor::from<double>({1e4, -1e4, 0}, {3, 1});
    CHECK(loss_and_finite(one, table, {}, 0) == std::pair(0.0, true));
    CHECK(loss_and_finite(one, table, {}, 1) == std::pair(2e4, true));
    const Tensor small = Tensor::from<double>({2, 1, 0}, {3, 1});
    const Tensor mask = Tensor::from<double>({-infinity, 0, 0}, {3});
    const auto [loss, finite] = loss_and_finite(one, small, mask, 1);
    CHECK(loss == Approx(std::log(1 + std::exp(-1.0))).epsilon(1e-6));
    CHECK(finite);
    CHECK(loss_and_finite(one, small, mask, 0).first == infinity);
    CHECK(std::isnan(loss_and_finite(one, Tensor::from<double>({2, nan, 0}, {3, 1}), {}, 0).first));
    CHECK(std::isnan(loss_and_finite(one, Tensor::from<double>({2, infinity, 0}, {3, 1}), {}, 0).first));
  }
}

TEST_CASE("item cross-entropy ignores what does not count, NaN included", "[item_cross_entropy]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Var x = Var::leaf(Tensor::from<double>({nan, nan, 1, 2, nan, 0}, {3, 2})),
            table = Var::leaf(ops::sample_normal({4, 2}, 1));
  const Tensor targets = Tensor::from<std::int64_t>({-1, 2, 1}, {3});
  auto [loss, gradients] = value_and_gradients([&] {
    return ops::item_cross_entropy(x, table, targets, {.weights = Tensor::from<double>({1, 1, 0}, {3})});
  });
  CHECK(std::isfinite(loss.item()));
  CHECK(all_finite(gradients[table]));
  const std::vector<double> dx = gradients[x].to_doubles();
  CHECK((dx[0] == 0 && dx[1] == 0 && dx[2] != 0 && dx[4] == 0 && dx[5] == 0));
}

}  // namespace
}  // namespace tally::item_cross_entropy_test
