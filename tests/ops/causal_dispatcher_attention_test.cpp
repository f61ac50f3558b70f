#include "tally/ops/attention/causal_dispatcher_attention.h"

#include <catch2/catch.hpp>

#include "tally/core/memory.h"
#include "tests/ops/dispatcher_cases.h"

namespace causal_dispatcher_attention_test {

using namespace tally;
using namespace tally::testing;

namespace {

const DispatcherFunction kCausal = [](const ops::DispatcherInputs& in, const Offsets& offsets) {
  return ops::causal_dispatcher_attention(in, offsets, {.heads = 2});
};

/// The bidirectional layer on every prefix of one sequence: its last row.
Tensor on_prefixes(const DispatcherCase& in) {
  Tensor rows;
  for (std::int64_t t = 1; t <= in.offsets.total(); ++t) {
    const DispatcherCase prefix = in.rows(0, t);
    const Tensor y = ops::dispatcher_attention(prefix.vars(), prefix.offsets, {.heads = in.heads}).output.value();
    if (!rows.defined()) rows = Tensor({in.offsets.total(), y.dim(1)}, y.dtype());
    rows.slice(0, t - 1, t).copy_from(y.slice(0, t - 1, t));
  }
  return rows;
}

/// Keys whose scores rise by about `step` at every `every`-th row.
DispatcherCase rising(std::int64_t length, double step, std::int64_t every, DType dtype) {
  DispatcherCase in = dispatcher_case({length}, {.dtype = DType::f64});
  in.inputs[0].fill(1);
  double* keys = in.inputs[1].mutable_data<double>();
  const std::int64_t columns = in.inputs[1].dim(1);
  for (std::int64_t i = 0; i < length * columns; ++i) {
    keys[i] = keys[i] * 0.1 + static_cast<double>(i / columns / every) * step / 2;  // scores of 4 columns / sqrt(4)
  }
  for (Tensor& each : in.inputs) each = each.to(dtype);
  return in;
}

}  // namespace

TEST_CASE("causal dispatcher attention is the bidirectional one on every prefix", "[causal_dispatcher_attention]") {
  // Lengths around the ends of chunks and checkpoints.
  for (const std::int64_t length : {1, 2, 31, 32, 33, 64, 97, 513, 600}) {
    for (const double deviation : {1.0, 10.0, 100.0}) {
      const DispatcherCase in = dispatcher_case({length}, {.deviation = deviation, .dtype = DType::f64});
      CHECK(largest_difference(kCausal(in.vars(), in.offsets).value(), on_prefixes(in)) < 1e-10);
    }
  }
}

TEST_CASE("scores that rise within a chunk lose nothing", "[causal_dispatcher_attention]") {
  for (const double step : {0.5, 5.0, 29.0, 31.0, 60.0, 87.0, 1000.0}) {
    for (const std::int64_t every : {1, 7, 40}) {
      CAPTURE(step, every);
      const DispatcherCase exact = rising(70, step, every, DType::f64);
      const Tensor expected = on_prefixes(exact);
      CHECK(largest_difference(kCausal(exact.vars(), exact.offsets).value(), expected) < 1e-10);
      // In f32 against f64 of the same numbers.
      const DispatcherCase narrow = rising(70, step, every, DType::f32);
      DispatcherCase wide = narrow;
      for (Tensor& each : wide.inputs) each = each.to(DType::f64);
      const DispatcherResults got = dispatch(kCausal, narrow), wanted = dispatch(kCausal, wide);
      // Scores of size s carry an error of s 2^-24.
      const double tolerance = 1e-5 + step * 70 / static_cast<double>(every) * 1e-6;
      CHECK(largest_difference(got.y, wanted.y) < tolerance);
      for (std::size_t i = 0; i < got.gradients.size(); ++i)
        CHECK(largest_difference(got.gradients[i], wanted.gradients[i]) < tolerance);
    }
  }
}

TEST_CASE("what comes later does not change causal dispatcher attention by a bit", "[causal_dispatcher_attention]") {
  const std::int64_t length = 200;
  const DispatcherCase in = dispatcher_case({length});
  for (const std::int64_t kept : {1, 20, 32, 50, 117, 199}) {
    for (const double size : {1.0, 1000.0}) {
      CAPTURE(kept, size);
      DispatcherCase changed = in;
      for (const std::size_t i : {1, 2, 3}) {
        changed.inputs[i] = in.inputs[i].clone();
        float* data = changed.inputs[i].mutable_data<float>();
        const std::int64_t columns = in.inputs[i].dim(1);
        for (std::int64_t j = kept * columns; j < length * columns; ++j)
          data[j] = static_cast<float>(size * (0.5 - static_cast<double>(data[j])));
      }
      // Cotangents of later rows are 0: nothing may flow back to them, or differ.
      const DispatcherResults before = dispatch(kCausal, in, kept), after = dispatch(kCausal, changed, kept);
      CHECK(same_rows(before.y, after.y, 0, kept));
      CHECK_FALSE(same_rows(before.y, after.y, kept, length));
      for (const std::size_t i : {1, 2, 3}) {
        CHECK(same_rows(before.gradients[i], after.gradients[i], 0, kept));
        for (const double value : after.gradients[i].slice(0, kept, length).contiguous().to_doubles())
          REQUIRE(value == 0);
      }
    }
  }
}

TEST_CASE("a sequence of causal dispatcher attention is the same bits alone and in company",
          "[causal_dispatcher_attention]") {
  CHECK(is_independent_of_company(kCausal, dispatcher_case({5, 0, 70, 1, 1200, 33})));
}

TEST_CASE("causal dispatcher attention stores no map of positions and experts", "[causal_dispatcher_attention]") {
  const DispatcherCase in = dispatcher_case({16384}, {.experts = 64, .width = 32, .read_width = 32});
  const MemoryScope scope;
  const Var output = kCausal(in.vars(), in.offsets);
  CHECK(scope.peak() - static_cast<std::int64_t>(output.value().bytes()) < 400000);
}

TEST_CASE("a number that is none reaches the rows of causal dispatcher attention that see it",
          "[causal_dispatcher_attention]") {
  DispatcherCase in = dispatcher_case({100});
  in.inputs[1].mutable_data<float>()[70 * in.inputs[1].dim(1)] = std::nanf("");
  const Tensor y = kCausal(in.vars(), in.offsets).value();
  CHECK(all_finite(y.slice(0, 0, 64).contiguous()));
  for (const double value : y.slice(0, 70, 100).contiguous().to_doubles()) CHECK(std::isnan(value));
}

}  // namespace causal_dispatcher_attention_test
