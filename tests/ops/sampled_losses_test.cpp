#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "tally/autograd/tape.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/catalog.h"
#include "tally/ops/kernels/logistic_loss.h"
#include "tally/ops/kernels/table_rows.h"
#include "tally/ops/losses/binary_cross_entropy.h"
#include "tally/ops/losses/item_cross_entropy.h"
#include "tally/ops/losses/sampled_softmax.h"

namespace tally::sampled_losses_test {
namespace {

double largest_difference(const Tensor& a, const Tensor& b) {
  const std::vector<double> va = a.to_doubles(), vb = b.to_doubles();
  REQUIRE(va.size() == vb.size());
  double largest = 0;
  for (std::size_t i = 0; i < va.size(); ++i) largest = std::max(largest, std::abs(va[i] - vb[i]));
  return largest;
}

/// Loss, dx and dtable.
struct Result {
  Tensor loss, x, table;
};

template <class Loss>
Result differentiate(const Tensor& x, const Tensor& table, Loss&& loss) {
  const Var vx = Var::leaf(x), ve = Var::leaf(table);
  auto [value, gradients] = value_and_gradients([&] { return loss(vx, ve); });
  return {value, gradients[vx], gradients[ve]};
}

TEST_CASE("sampled softmax over everything but the positive is item cross-entropy", "[sampled_softmax]") {
  const std::int64_t tokens = 9, items = 13, width = 5;
  const Tensor x = ops::sample_normal({tokens, width}, 1), table = ops::sample_normal({items, width}, 2);
  const Tensor positives = Tensor::from<std::int64_t>({0, 12, 3, 3, -1, 7, 1, 0, 5}, {tokens});
  Tensor others({tokens, items - 1}, DType::i64);
  std::int64_t* out = others.mutable_data<std::int64_t>();
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int64_t positive = std::max<std::int64_t>(positives.data<std::int64_t>()[t], 0);
    for (std::int64_t i = 0; i < items; ++i) {
      if (i != positive) *out++ = i;
    }
  }
  const Result full =
      differentiate(x, table, [&](const Var& vx, const Var& ve) { return ops::item_cross_entropy(vx, ve, positives); });
  // Each token's own negatives; the whole catalogue shared, with the hits left out; and both shifted by one log q.
  const auto check_equal = [&](const Tensor& negatives, const ops::SampledSoftmaxOptions& options) {
    const Result sampled = differentiate(x, table, [&](const Var& vx, const Var& ve) {
      return ops::sampled_softmax(vx, ve, positives, negatives, options);
    });
    CHECK(sampled.loss.item() == Approx(full.loss.item()).epsilon(1e-12));
    CHECK(largest_difference(sampled.x, full.x) < 1e-12);
    CHECK(largest_difference(sampled.table, full.table) < 1e-12);
  };
  check_equal(others, {});
  check_equal(Tensor::arange(items), {});
  check_equal(others, {.log_q_positives = Tensor::full({tokens}, -2.5, DType::f64),
                       .log_q_negatives = Tensor::full(others.shape(), -2.5, DType::f64)});
  check_equal(Tensor::arange(items), {.log_q_positives = Tensor::full({tokens}, -2.5, DType::f64),
                                      .log_q_negatives = Tensor::full({items}, -2.5, DType::f64)});
}

TEST_CASE("a hit that is kept counts as one more positive", "[sampled_softmax]") {
  const Tensor x = Tensor::from<double>({1}, {1, 1}), table = Tensor::from<double>({2, 0}, {2, 1});
  const Tensor positive = Tensor::zeros({1}, DType::i64);
  for (const Tensor& drawn : {Tensor::zeros({1}, DType::i64), Tensor::zeros({1, 1}, DType::i64)}) {
    CHECK(ops::sampled_softmax(x, table, positive, drawn).item() == 0);
    CHECK(ops::sampled_softmax(x, table, positive, drawn, {.remove_accidental_hits = false}).item() ==
          Approx(std::log(2.0)));
  }
}

TEST_CASE("logQ makes the expected sampled sum that of the whole table", "[sampled_softmax]") {
  // One negative drawn with probability q_i: the expectation over draws of exp(s_i - log q_i) is sum_i exp(s_i),
  // exactly.
  const std::int64_t items = 6;
  const Tensor x = ops::sample_normal({1, 3}, 1), table = ops::sample_normal({items, 3}, 2);
  const std::vector<double> q{0.1, 0.3, 0.05, 0.15, 0.2, 0.2};
  const Tensor positive = Tensor::zeros({1}, DType::i64);
  double expected = 0;
  for (std::int64_t i = 0; i < items; ++i) {
    const double log_q = std::log(q[static_cast<std::size_t>(i)]);
    const double loss =
        ops::sampled_softmax(x, table, positive, Tensor::full({1}, static_cast<double>(i), DType::i64),
                             {.log_q_negatives = Tensor::full({1}, log_q, DType::f64), .remove_accidental_hits = false})
            .item();
    expected += q[static_cast<std::size_t>(i)] * (std::exp(loss) - 1);  // exp(s_i - log q_i - s_positive)
  }
  const double full = ops::item_cross_entropy(x, table, positive).item();
  CHECK(expected == Approx(std::exp(full)).epsilon(1e-12));
}

TEST_CASE("sampled losses give row gradients of the rows that were used", "[sampled_softmax][binary_cross_entropy]") {
  const Var x = Var::leaf(ops::sample_normal({3, 2}, 1)), table = Var::leaf(ops::sample_normal({100, 2}, 2));
  const Tensor positives = Tensor::from<std::int64_t>({70, -1, 4}, {3});
  const Tensor per_token = Tensor::from<std::int64_t>({9, 70, 55, 56, 9, 4}, {3, 2});
  const Tensor shared = Tensor::from<std::int64_t>({30, 4, 30}, {3});
  const auto rows_of = [&](auto&& loss) {
    auto [value, gradients] = value_and_gradients(loss);
    const auto* rows = std::get_if<RowGrad>(gradients.find(table.leaf_id()));
    REQUIRE(rows != nullptr);
    return rows->rows.to_doubles();
  };
  CHECK(rows_of([&] { return ops::binary_cross_entropy(x, table, positives, per_token); }) ==
        std::vector<double>{4, 9, 70});
  CHECK(rows_of([&] { return ops::sampled_softmax(x, table, positives, per_token); }) == std::vector<double>{4, 9, 70});
  CHECK(rows_of([&] { return ops::sampled_softmax(x, table, positives, shared); }) == std::vector<double>{4, 30, 70});
}

TEST_CASE("sampled losses: f32 follows f64, the same bits on any number of threads",
          "[sampled_softmax][binary_cross_entropy]") {
  const int threads = num_threads();
  const std::int64_t tokens = 1000, items = 3000, width = 50;
  const Tensor x = ops::sample_normal({tokens, width}, 1, 0.3), table = ops::sample_normal({items, width}, 2, 0.3);
  const Tensor positives = ops::sample_integers({tokens}, 3, 40),
               per_token = ops::sample_integers({tokens, 7}, 4, items);
  const Tensor shared = ops::sample_integers({600}, 5, items);
  const std::vector<std::function<Var(const Var&, const Var&)>> losses{
      [&](const Var& vx, const Var& ve) {
        return ops::binary_cross_entropy(vx, ve, positives, per_token, {.positive_power = 0.5});
      },
      [&](const Var& vx, const Var& ve) { return ops::sampled_softmax(vx, ve, positives, per_token); },
      [&](const Var& vx, const Var& ve) { return ops::sampled_softmax(vx, ve, positives, shared); }};
  for (const auto& loss : losses) {
    const Result exact = differentiate(x, table, loss);
    std::vector<Result> results;
    for (const int count : {1, 2, 8}) {
      set_num_threads(count);
      results.push_back(differentiate(x.to(DType::f32), table.to(DType::f32), loss));
    }
    set_num_threads(threads);
    for (const Result& result : results) {
      CHECK(identical(result.loss, results[0].loss));
      CHECK(identical(result.x, results[0].x));
      CHECK(identical(result.table, results[0].table));
    }
    CHECK(results[0].loss.item() == Approx(exact.loss.item()).epsilon(1e-6));
    CHECK(largest_difference(results[0].x, exact.x) < 3e-6);
    CHECK(largest_difference(results[0].table, exact.table) < 3e-5);  // popular rows are sums of 25 tokens
  }
}

TEST_CASE("gBCE's power", "[binary_cross_entropy]") {
  // alpha = k / (|I| - 1); beta = alpha (t (1 - 1 / alpha) + 1 / alpha)
  const double alpha = 256.0 / 3415, t = 0.75;
  CHECK(ops::gbce_positive_power(256, 3416, t) == Approx(alpha * (t * (1 - 1 / alpha) + 1 / alpha)).epsilon(1e-14));
  CHECK(ops::gbce_positive_power(256, 3416, 0) == 1);
  CHECK(ops::gbce_positive_power(3415, 3416, 1) == 1);
  CHECK_THROWS_WITH(ops::gbce_positive_power(0, 10, 0.5), Catch::Contains("at least one negative"));
  CHECK_THROWS_WITH(ops::gbce_positive_power(10, 10, 0.5), Catch::Contains("fewer than items"));
  CHECK_THROWS_WITH(ops::gbce_positive_power(1, 10, 1.5), Catch::Contains("[0, 1]"));
}

TEST_CASE("binary cross-entropy is the elementwise loss of its scores", "[binary_cross_entropy]") {
  // x = 1: the scores are the table's values themselves.
  const Tensor x = Tensor::full({2, 1}, 1, DType::f64), table = Tensor::from<double>({0.3, -1.2, 2, 0.7}, {4, 1});
  const Tensor positives = Tensor::from<std::int64_t>({2, 0}, {2}),
               negatives = Tensor::from<std::int64_t>({1, 3, 3, 1}, {2, 2});
  const double sampled = ops::binary_cross_entropy(x, table, positives, negatives).item();
  const Tensor logits = Tensor::from<double>({2, -1.2, 0.7, 0.3, 0.7, -1.2}, {6});
  const Tensor targets = Tensor::from<double>({1, 0, 0, 1, 0, 0}, {6});
  CHECK(sampled == Approx(ops::binary_cross_entropy_with_logits(logits, targets).item()).epsilon(1e-14));
}

TEST_CASE("extreme scores stay finite, NaN is not hidden", "[sampled_softmax][binary_cross_entropy]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Tensor positives = Tensor::from<std::int64_t>({0, 1}, {2}),
               per_token = Tensor::from<std::int64_t>({1, 0}, {2, 1});
  const Tensor shared = Tensor::from<std::int64_t>({0, 1}, {2});
  const std::vector<std::function<Var(const Var&, const Var&)>> losses{
      [&](const Var& vx, const Var& ve) { return ops::binary_cross_entropy(vx, ve, positives, per_token); },
      [&](const Var& vx, const Var& ve) { return ops::sampled_softmax(vx, ve, positives, per_token); },
      [&](const Var& vx, const Var& ve) { return ops::sampled_softmax(vx, ve, positives, shared); }};
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor x = Tensor::from<double>({1e4, 1e4}, {2, 1}).to(dtype);
    for (const auto& loss : losses) {
      const Result result = differentiate(x, Tensor::from<double>({1, -1}, {2, 1}).to(dtype), loss);
      // One token is right by 2e4, the other wrong by as much (twice 1e4 for the binary loss).
      CHECK(result.loss.item() == 2e4);
      CHECK(all_finite(result.x));
      CHECK(all_finite(result.table));
      CHECK(std::isnan(differentiate(x, Tensor::from<double>({1, nan}, {2, 1}).to(dtype), loss).loss.item()));
    }
  }
}

TEST_CASE("logistic loss in f32 follows double to the last bits, in every place", "[binary_cross_entropy]") {
  std::vector<float> x, targets;
  for (int i = -200; i <= 200; ++i) {
    for (const float target : {0.0f, 1.0f, 0.3f}) {
      x.push_back(0.11f * static_cast<float>(i));
      targets.push_back(target);
    }
  }
  const auto n = static_cast<std::int64_t>(x.size());
  std::vector<float> losses(x.size()), slopes(x.size());
  kernels::logistic_loss(losses.data(), slopes.data(), x.data(), targets.data(), n);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const long double z = x[i], y = targets[i];
    const long double loss = y * std::log1p(std::exp(-z)) + (1 - y) * std::log1p(std::exp(z));
    CHECK(std::abs(losses[i] - loss) <= 4e-7L * loss + 1e-37L);
    CHECK(std::abs(slopes[i] - (1 / (1 + std::exp(-z)) - y)) < 2e-7L);
    float alone_loss = 0, alone_slope = 0;
    kernels::logistic_loss(&alone_loss, &alone_slope, &x[i], &targets[i], 1);
    CHECK((alone_loss == losses[i] && alone_slope == slopes[i]));
  }
}

TEST_CASE("products with chosen rows follow plain loops", "[table_rows]") {
  for (const std::int64_t width : {1, 7, 16, 50, 64, 129}) {
    const Tensor table = ops::sample_normal({90, width}, 1).to(DType::f32),
                 x = ops::sample_normal({width}, 2).to(DType::f32);
    for (const std::int64_t count : {0, 1, 3, 4, 150}) {
      const Tensor rows = ops::sample_integers({count}, 3, 90), factors = ops::sample_normal({count}, 4).to(DType::f32);
      std::vector<float> dots(static_cast<std::size_t>(count)), sums(static_cast<std::size_t>(width), 1.0f);
      std::vector<double> wanted(sums.size(), 1.0);
      kernels::dot_rows(dots.data(), x.data<float>(), table.data<float>(), rows.data<std::int64_t>(), count, width);
      kernels::add_weighted_rows(sums.data(), factors.data<float>(), table.data<float>(), rows.data<std::int64_t>(),
                                 count, width);
      double error = 0;
      for (std::int64_t j = 0; j < count; ++j) {
        double dot = 0;
        for (std::int64_t d = 0; d < width; ++d) {
          const double value = static_cast<double>(table.data<float>()[rows.data<std::int64_t>()[j] * width + d]);
          dot += value * static_cast<double>(x.data<float>()[d]);
          wanted[static_cast<std::size_t>(d)] += value * static_cast<double>(factors.data<float>()[j]);
        }
        error = std::max(error, std::abs(dot - static_cast<double>(dots[static_cast<std::size_t>(j)])));
      }
      for (std::size_t d = 0; d < sums.size(); ++d)
        error = std::max(error, std::abs(wanted[d] - static_cast<double>(sums[d])));
      CHECK(error < 1e-5);
    }
  }
}

}  // namespace
}  // namespace tally::sampled_losses_test
