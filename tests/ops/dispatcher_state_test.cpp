#include "tally/ops/attention/dispatcher_state.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "tally/ops/attention/causal_dispatcher_attention.h"
#include "tests/ops/dispatcher_cases.h"

namespace dispatcher_state_test {

using namespace tally;
using namespace tally::testing;

namespace {

template <class T>
std::span<const T> row(const Tensor& x, std::int64_t t) {
  return x.span<T>().subspan(static_cast<std::size_t>(t * x.dim(1)), static_cast<std::size_t>(x.dim(1)));
}

/// Every row by the recurrent form, and the state after the last.
template <class T>
std::pair<Tensor, ops::DispatcherState> stream(const DispatcherCase& in, const ops::DispatcherReader& reader,
                                               std::int64_t begin, std::int64_t end) {
  ops::DispatcherState state = ops::dispatcher_state(reader.heads(), reader.experts(), reader.value_width());
  Tensor rows({end - begin, reader.heads() * reader.output_width()}, in.inputs[1].dtype());
  for (std::int64_t t = begin; t < end; ++t) {
    const auto width = static_cast<std::size_t>(rows.dim(1));
    reader.step(state, row<T>(in.inputs[1], t), row<T>(in.inputs[2], t), row<T>(in.inputs[3], t),
                rows.mutable_span<T>().subspan(static_cast<std::size_t>(t - begin) * width, width));
  }
  return {rows, state};
}

ops::DispatcherReader reader_of(const DispatcherCase& in) {
  return {in.inputs[0], in.inputs[4], in.inputs[5], {.heads = in.heads}};
}

}  // namespace

TEST_CASE("the recurrent form of dispatcher attention agrees with the parallel one", "[dispatcher_state]") {
  for (const double deviation : {1.0, 30.0}) {
    for (const bool own_heads : {false, true}) {
      DispatcherCase in = dispatcher_case({700}, {.deviation = deviation, .dtype = DType::f64});
      if (own_heads) {
        in.inputs[4] = ops::sample_normal({2, 3, 3}, 50);
        in.inputs[5] = ops::sample_normal({2, 3, 4}, 51);
      }
      const ops::DispatcherReader reader = reader_of(in);
      const auto [rows, state] = stream<double>(in, reader, 0, 700);
      const Tensor whole = ops::causal_dispatcher_attention(in.vars(), in.offsets, {.heads = 2}).value();
      CHECK(largest_difference(whole, rows) < 1e-11);
      CHECK(state.events == 700);
      CHECK(state.sums.size() + state.weights.size() + state.largest.size() == 5 * (6 + 2 * 2));
      DispatcherCase narrow = in;
      for (Tensor& each : narrow.inputs) each = each.to(DType::f32);
      DispatcherCase wide = narrow;
      for (Tensor& each : wide.inputs) each = each.to(DType::f64);
      CHECK(largest_difference(stream<double>(wide, reader_of(wide), 0, 700).first,
                               stream<float>(narrow, reader_of(narrow), 0, 700).first) < 1e-6);
    }
  }
}

TEST_CASE("a long history of a dispatcher state stays exact", "[dispatcher_state]") {
  // Equal keys: what an expert gathered is the mean of the values, known in closed form.
  const ops::DispatcherReader reader(Tensor::from<float>({1}, {1, 1}), Tensor::from<float>({0}, {1, 1}),
                                     Tensor::from<float>({1}, {1, 1}));
  ops::DispatcherState state = ops::dispatcher_state(1, 1, 1);
  const float key = 1, query = 1;
  float out = 0;
  const int events = 1000000;
  for (int t = 0; t < events; ++t) {
    const float value = t % 2 == 0 ? 0.1f : 1000.0f;
    reader.step(state, std::span(&key, 1), std::span(&value, 1), std::span(&query, 1), std::span(&out, 1));
  }
  CHECK(out == Approx((static_cast<double>(0.1f) + 1000) / 2).epsilon(1e-7));
  CHECK(state.events == events);
}

TEST_CASE("states of two histories of experts merge into that of both", "[dispatcher_state]") {
  const DispatcherCase in = dispatcher_case({60}, {.deviation = 5, .dtype = DType::f64});
  const ops::DispatcherReader reader = reader_of(in);
  const ops::DispatcherState all = stream<double>(in, reader, 0, 60).second;
  const ops::DispatcherState merged =
      ops::merge(stream<double>(in, reader, 0, 25).second, stream<double>(in, reader, 25, 60).second);
  CHECK(merged.events == all.events);
  CHECK(merged.largest == all.largest);
  for (std::size_t i = 0; i < all.sums.size(); ++i) CHECK(merged.sums[i] == Approx(all.sums[i]).margin(1e-12));
  for (std::size_t i = 0; i < all.weights.size(); ++i) CHECK(merged.weights[i] == Approx(all.weights[i]));
  CHECK(ops::merge(all, ops::dispatcher_state(2, 5, 3)) == all);
  CHECK_THROWS_AS(ops::merge(all, ops::dispatcher_state(2, 4, 3)), ShapeError);
}

TEST_CASE("a dispatcher state refuses what is not its own", "[dispatcher_state]") {
  using Catch::Matchers::Contains;
  const DispatcherCase in = dispatcher_case({3}, {.dtype = DType::f64});
  const ops::DispatcherReader reader = reader_of(in);
  auto [rows, state] = stream<double>(in, reader, 0, 2);
  const ops::DispatcherState before = state;
  std::vector<double> key(8, NAN), value(6, 1), query(6, 1), out(8);
  CHECK_THROWS_WITH(reader.step(state, key, value, query, out), Contains("needs a finite key, value and query"));
  key.assign(7, 1);
  CHECK_THROWS_AS(reader.step(state, key, value, query, out), ShapeError);
  CHECK(state == before);
  key.assign(8, 1);
  ops::DispatcherState other = ops::dispatcher_state(2, 6, 3), unmade;
  CHECK_THROWS_AS(reader.step(other, key, value, query, out), ShapeError);
  CHECK_THROWS_WITH(reader.step(unmade, key, value, query, out), Contains("made by dispatcher_state()"));
  CHECK_THROWS_AS(ops::dispatcher_state(1, 0, 3), ValueError);
  CHECK_THROWS_AS(ops::DispatcherReader(in.inputs[0], in.inputs[5], in.inputs[4], {.heads = 3}), ShapeError);
  Tensor broken = in.inputs[0].clone();
  broken.mutable_data<double>()[3] = HUGE_VAL;
  CHECK_THROWS_WITH(ops::DispatcherReader(broken, in.inputs[4], in.inputs[5], {.heads = 2}),
                    Contains("finite expert queries"));
}

}  // namespace dispatcher_state_test
