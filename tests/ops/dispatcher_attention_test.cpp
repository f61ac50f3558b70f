#include "tally/ops/attention/dispatcher_attention.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "tally/core/memory.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/reduce.h"
#include "tests/ops/dispatcher_cases.h"

namespace dispatcher_attention_test {

using namespace tally;
using namespace tally::testing;

namespace {

const DispatcherFunction kBidirectional = [](const ops::DispatcherInputs& in, const Offsets& offsets) {
  return ops::dispatcher_attention(in, offsets, {.heads = 2}).output;
};

/// Rank of a matrix by elimination with full pivoting.
std::int64_t rank_of(std::vector<double> x, std::int64_t rows, std::int64_t columns) {
  const auto at = [&](std::int64_t i, std::int64_t j) -> double& {
    return x[static_cast<std::size_t>(i * columns + j)];
  };
  std::int64_t rank = 0;
  while (rank < std::min(rows, columns)) {
    std::int64_t pi = rank, pj = rank;
    for (std::int64_t i = rank; i < rows; ++i) {
      for (std::int64_t j = rank; j < columns; ++j) {
        if (std::abs(at(i, j)) > std::abs(at(pi, pj))) pi = i, pj = j;
      }
    }
    if (std::abs(at(pi, pj)) < 1e-13) break;
    for (std::int64_t j = 0; j < columns; ++j) std::swap(at(rank, j), at(pi, j));
    for (std::int64_t i = 0; i < rows; ++i) std::swap(at(i, rank), at(i, pj));
    for (std::int64_t i = rank + 1; i < rows; ++i) {
      const double factor = at(i, rank) / at(rank, rank);
      for (std::int64_t j = rank; j < columns; ++j) at(i, j) -= factor * at(rank, j);
    }
    ++rank;
  }
  return rank;
}

}  // namespace

TEST_CASE("the map of dispatcher attention is row-stochastic and of rank k at most", "[dispatcher_attention]") {
  const std::int64_t length = 40;
  for (const std::int64_t experts : {1, 3, 16}) {
    DispatcherCase in =
        dispatcher_case({length}, {.experts = experts, .heads = 1, .width = length, .dtype = DType::f64});
    // Values that let the map itself through: columns are positions, and the experts' are not mixed.
    Tensor identity = Tensor::zeros({length, length}, DType::f64);
    for (std::int64_t i = 0; i < length; ++i) identity.mutable_data<double>()[i * length + i] = 1;
    in.inputs[2] = in.inputs[5] = identity;
    in.inputs[4] = ops::sample_normal({length, in.inputs[3].dim(1)}, 77);
    const std::vector<double> map = ops::dispatcher_attention(in.vars(), in.offsets).output.value().to_doubles();
    for (auto row = map.begin(); row != map.end(); row += length) {
      CHECK(*std::min_element(row, row + length) >= 0);
      CHECK(std::accumulate(row, row + length, 0.0) == Approx(1).epsilon(1e-13));
    }
    CHECK(rank_of(map, length, length) == experts);
  }
}

TEST_CASE("a sequence of dispatcher attention is the same bits alone and in company", "[dispatcher_attention]") {
  CHECK(is_independent_of_company(kBidirectional, dispatcher_case({5, 0, 70, 1, 1200, 33})));
}

TEST_CASE("updated experts carry gradients from a layer to the next", "[dispatcher_attention]") {
  // Two layers: the experts of the first are those of the second.
  const DispatcherCase in = dispatcher_case({5, 0, 3}, {.width = 3, .read_width = 3, .dtype = DType::f64});
  const auto two_layers = [&](const Var& keys) {
    ops::DispatcherInputs layer = in.vars();
    layer.keys = keys;
    ops::DispatcherOutput first = ops::dispatcher_attention(layer, in.offsets, {.heads = 2});
    layer.expert_queries = first.experts;
    layer.values = first.output;
    return ops::sum(ops::square(ops::dispatcher_attention(layer, in.offsets, {.heads = 2}).output));
  };
  Tape tape;
  const Var keys = tape.input(in.inputs[1]);
  Var y;
  {
    const Recording on(tape);
    y = two_layers(keys);
  }
  const std::vector<double> gradient = tape.backward(y)[keys].to_doubles();
  for (const std::size_t i : {std::size_t{0}, std::size_t{7}, gradient.size() - 1}) {
    Tensor up = in.inputs[1].clone(), down = in.inputs[1].clone();
    up.mutable_data<double>()[i] += 1e-5;
    down.mutable_data<double>()[i] -= 1e-5;
    CHECK(gradient[i] == Approx((two_layers(up).item() - two_layers(down).item()) / 2e-5).epsilon(1e-6).margin(1e-9));
  }
}

TEST_CASE("dispatcher attention stores no map of positions and experts", "[dispatcher_attention]") {
  // 16,384 rows and 64 experts: a map would be 4 MB a head. Beyond its output a call keeps log-sum-exps in f64 (0.26
  // MB) and what each of 16 segments gathers (0.3 MB).
  const DispatcherCase in = dispatcher_case({16384}, {.experts = 64, .width = 32, .read_width = 32});
  const MemoryScope scope;
  const Var output = kBidirectional(in.vars(), in.offsets);
  CHECK(scope.peak() - static_cast<std::int64_t>(output.value().bytes()) < 1200000);
}

}  // namespace dispatcher_attention_test
