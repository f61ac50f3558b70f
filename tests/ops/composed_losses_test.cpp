#include <catch2/catch.hpp>
#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/ops/catalog.h"
#include "tally/ops/losses/bpr_loss.h"
#include "tally/ops/losses/cross_entropy.h"
#include "tally/ops/losses/mean_squared_error.h"

namespace tally::composed_losses_test {
namespace {

struct Differentiated {
  double value;
  Tensor by_first, by_second;
};

Differentiated differentiated(Var (*loss)(const Var&, const Var&), const Tensor& a, const Tensor& b) {
  const Var first = Var::leaf(a), second = Var::leaf(b);
  const auto [value, gradients] = value_and_gradients([&] { return loss(first, second); });
  return {value.item(), gradients[first], gradients[second]};
}

TEST_CASE("mean squared error and its gradients are those of plain loops", "[losses]") {
  const Tensor prediction = ops::sample_normal({3, 5}, 1), target = ops::sample_normal({5}, 2);  // of each row
  const Differentiated got = differentiated(ops::mean_squared_error, prediction, target);
  double total = 0;
  std::vector<double> by_target(5);
  for (std::int64_t i = 0; i < 3; ++i) {
    for (std::int64_t j = 0; j < 5; ++j) {
      const double difference = prediction(i, j) - target(j);
      total += difference * difference;
      CHECK(got.by_first(i, j) == Approx(2 * difference / 15));
      by_target[static_cast<std::size_t>(j)] -= 2 * difference / 15;
    }
  }
  CHECK(got.value == Approx(total / 15));
  for (std::int64_t j = 0; j < 5; ++j) CHECK(got.by_second(j) == Approx(by_target[static_cast<std::size_t>(j)]));
  CHECK_THROWS_AS(ops::mean_squared_error(Tensor({0, 2}), Tensor({0, 2})), ShapeError);
}

TEST_CASE("BPR's loss and its gradients are those of plain loops, and finite far out", "[losses]") {
  const Tensor positive = ops::sample_normal({3, 1}, 3, 2), negative = ops::sample_normal({3, 4}, 4, 2);
  const Differentiated got = differentiated(ops::bpr_loss, positive, negative);
  double total = 0;
  for (std::int64_t t = 0; t < 3; ++t) {
    double by_positive = 0;
    for (std::int64_t k = 0; k < 4; ++k) {
      const double chance = 1 / (1 + std::exp(negative(t, k) - positive(t, 0)));  // that the positive one is above
      total -= std::log(chance);
      CHECK(got.by_second(t, k) == Approx((1 - chance) / 12));
      by_positive -= (1 - chance) / 12;
    }
    CHECK(got.by_first(t, 0) == Approx(by_positive));
  }
  CHECK(got.value == Approx(total / 12));
  CHECK(ops::bpr_loss(Tensor::full({1}, -1e30), Tensor::full({1}, 0)).item() == Approx(1e30));
}

TEST_CASE("cross-entropy of confident rows keeps its digits, and of no row is 0", "[losses]") {
  // -log(1 / (1 + e^-14)) is e^-14 but for its square.
  const Tensor logits = Tensor::from({20.0f, 6.0f}, {1, 2}), target = Tensor::full({1}, 0, DType::i64);
  CHECK(ops::cross_entropy(logits, target).item() == Approx(std::exp(-14.0)).epsilon(1e-5));
  const Var x = Var::leaf(logits);
  const auto [value, gradients] =
      value_and_gradients([&] { return ops::cross_entropy(x, Tensor::full({1}, -1, DType::i64)); });
  CHECK(value.item() == 0);
  CHECK(gradients[x].to_doubles() == std::vector<double>{0, 0});
  CHECK(std::isnan(ops::cross_entropy(Tensor::from({1.0f, NAN}, {1, 2}), target).item()));
}

}  // namespace
}  // namespace tally::composed_losses_test
