#include "tally/ops/memory/product_keys.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/ops/catalog.h"
#include "tally/ops/memory/product_key_memory.h"
#include "tally/ops/tensor/reduce.h"

namespace product_keys_test {

using namespace tally;

namespace {

/// One query of width 2 halves whose sub-scores are exactly the keys: keys [1, 2, n, 1], query of ones.
std::vector<std::int64_t> choose(const std::vector<float>& a, const std::vector<float>& b, std::int64_t slots) {
  const auto n = static_cast<std::int64_t>(a.size());
  std::vector<float> keys = a;
  keys.insert(keys.end(), b.begin(), b.end());
  const ops::ProductKeyChoice choice =
      ops::product_keys(Tensor::from<float>({1, 1}, {1, 2}), Tensor::from<float>(keys, {1, 2, n, 1}), {.slots = slots});
  const auto chosen = choice.slots.span<std::int64_t>();
  return {chosen.begin(), chosen.end()};
}

/// All n^2 slots in the order that is promised, the best `slots` of them.
std::vector<std::int64_t> brute_force(const std::vector<float>& a, const std::vector<float>& b, std::int64_t slots) {
  const std::size_t n = a.size();
  const auto ranks = [n](const std::vector<float>& scores) {
    std::vector<std::size_t> order(n), rank(n);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t x, std::size_t y) { return scores[x] > scores[y]; });
    for (std::size_t i = 0; i < n; ++i) rank[order[i]] = i;
    return rank;
  };
  const std::vector<std::size_t> rank_a = ranks(a), rank_b = ranks(b);
  struct Slot {
    float score;
    std::size_t a, b;
    std::int64_t index;
  };
  std::vector<Slot> all;
  for (std::size_t i = 0; i < n * n; ++i)
    all.push_back({a[i / n] + b[i % n], rank_a[i / n], rank_b[i % n], static_cast<std::int64_t>(i)});
  std::sort(all.begin(), all.end(), [](const Slot& x, const Slot& y) {
    if (x.score != y.score) return x.score > y.score;
    return x.a != y.a ? x.a < y.a : x.b < y.b;
  });
  std::vector<std::int64_t> best;
  for (std::int64_t j = 0; j < slots; ++j) best.push_back(all[static_cast<std::size_t>(j)].index);
  return best;
}

}  // namespace

TEST_CASE("product keys choose as a look at every slot does", "[product_keys]") {
  // Random scores; scores of a few values, which tie; and a second table whose scores vanish in the sums' rounding.
  for (std::uint64_t trial = 0; trial < 10000; ++trial) {
    const auto n = static_cast<std::int64_t>(1 + uniform_below(RngKey{3, trial}, 0, 0, 16));
    const auto slots = static_cast<std::int64_t>(
        1 + uniform_below(RngKey{3, trial}, 0, 1, static_cast<std::uint64_t>(std::min<std::int64_t>(n * n, 40))));
    const auto draw = [&](std::uint64_t stream, double size, bool coarse) {
      std::vector<float> scores;
      for (const double x : ops::sample_normal({n}, trial * 2 + stream, size).to_doubles())
        scores.push_back(static_cast<float>(coarse ? std::round(x * 2) / 2 : x));
      return scores;
    };
    const std::uint64_t kind = trial % 4;
    const std::vector<float> a = draw(0, 1, kind == 1 || kind == 2);
    const std::vector<float> b = draw(1, kind == 2 || kind == 3 ? 1e-7 : 1, kind == 1);
    CAPTURE(trial, n, slots);
    REQUIRE(choose(a, b, slots) == brute_force(a, b, slots));
  }
}

TEST_CASE("equal product keys are chosen by rank, that is by index", "[product_keys]") {
  CHECK(choose({1, 1, 1}, {2, 2, 2}, 5) == std::vector<std::int64_t>{0, 1, 2, 3, 4});
  // Sums 3, 3 and 3: the better sub-key of the first table comes first, whatever its index.
  CHECK(choose({1, 2, 0}, {1, 2, 3}, 6) == std::vector<std::int64_t>{5, 4, 2, 3, 1, 8});
  // A sum that overflows is the best.
  CHECK(choose({3e38f, 0}, {3e38f, 1}, 2) == std::vector<std::int64_t>{0, 1});
}

TEST_CASE("the gradient of a memory's values has the rows that were chosen", "[product_keys]") {
  Tape tape;
  const Var values = tape.input(ops::sample_normal({64, 5}, 1).to(DType::f32));
  const Var queries = tape.input(ops::sample_normal({3, 8}, 2).to(DType::f32));
  const Var keys = tape.input(ops::sample_normal({2, 2, 8, 2}, 3).to(DType::f32));
  ops::ProductKeyMemoryResult result;
  Var y;
  {
    const Recording on(tape);
    result = ops::product_key_memory(queries, keys, values, {}, {.heads = 2, .slots = 4});
    y = ops::sum(result.output);
  }
  const Gradients gradients = tape.backward(y);
  const auto* rows = std::get_if<RowGrad>(gradients.find(values.leaf_id()));
  REQUIRE(rows != nullptr);
  std::vector<std::int64_t> chosen(result.slots.span<std::int64_t>().begin(), result.slots.span<std::int64_t>().end());
  std::sort(chosen.begin(), chosen.end());
  chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  CHECK(std::vector<std::int64_t>(rows->rows.span<std::int64_t>().begin(), rows->rows.span<std::int64_t>().end()) ==
        chosen);
  // Queries and keys learn through the weights.
  CHECK(sum_squares(*gradients.find(queries.leaf_id())) > 0);
  CHECK(sum_squares(*gradients.find(keys.leaf_id())) > 0);
}

}  // namespace product_keys_test
