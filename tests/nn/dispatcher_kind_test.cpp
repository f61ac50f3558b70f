#include <catch2/catch.hpp>

#include "tally/core/parallel.h"
#include "tally/nn/attention/attention_kinds.h"
#include "tests/nn/dispatcher_definition.h"
#include "tests/nn/module_gradients.h"

namespace dispatcher_kind_test {

using namespace tally;
using namespace tally::testing;
using Catch::Matchers::Contains;

namespace {

Tensor normal(const Shape& shape, std::uint64_t stream, DType dtype = DType::f32) {
  Tensor x(shape, DType::f64);
  fill_normal(RngKey{5, stream}, x, 0, 1);
  return x.to(dtype);
}

nn::DispatcherKind make(const nn::DispatcherOptions& options, ops::AttentionMask mask) {
  nn::DispatcherKind kind = nn::DispatcherKind::make(options, {.width = 6, .heads = 2, .mask = mask}, RngKey{4});
  nn::convert(kind, DType::f64);
  std::uint64_t stream = 50;
  for (auto& [path, parameter] : nn::parameters(kind)) {
    const Tensor noise = normal(parameter->shape(), stream++, DType::f64);
    auto values = parameter->mutable_value().mutable_span<double>();
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += 0.3 * noise.data<double>()[i];
  }
  return kind;
}

Rows slice_of(const Tensor& x, const Offsets& offsets, std::int64_t i) {
  return rows_in_double(x.slice(0, offsets.at(i), offsets.at(i + 1)).contiguous());
}

}  // namespace

TEST_CASE("dispatcher attention as a kind is its definition, both ways", "[dispatcher_kind]") {
  const std::vector<std::int64_t> lengths{1, 7, 40};
  const Offsets offsets = Offsets::from_lengths(lengths);
  const Tensor queries = normal({48, 6}, 1, DType::f64), source = normal({48, 6}, 2, DType::f64);
  for (const auto mask : {ops::AttentionMask::causal, ops::AttentionMask::bidirectional}) {
    for (const auto heads : {nn::ExpertHeads::mixed, nn::ExpertHeads::own}) {
      for (const bool own : {true, false}) {
        const nn::DispatcherKind kind = make({.experts = 4, .heads = heads, .own_experts = own}, mask);
        // A set of experts for each sequence, or one.
        const Tensor given = own ? kind.experts.value() : normal({3, 4, 6}, 3, DType::f64);
        const auto dispatched = kind.dispatch(queries, source, given, {offsets});
        for (std::int64_t i = 0; i < 3; ++i) {
          const auto part = [&](const Tensor& x) { return x.slice(0, offsets.at(i), offsets.at(i + 1)).contiguous(); };
          const Tensor experts = own ? given : given.slice(0, i, i + 1).contiguous().reshape({4, 6});
          const Rows expected = dispatched_by_definition(kind, part(queries), part(source), experts);
          CHECK(largest_difference(slice_of(dispatched.output.value(), offsets, i), expected) < 1e-12);
        }
        const bool causal = mask == ops::AttentionMask::causal;
        CHECK(dispatched.experts.defined() != causal);
        if (!causal) CHECK(dispatched.experts.shape() == Shape{3, 4, 6});
        if (own) {
          const Rows called = rows_in_double(kind(queries, source, {offsets}, {}).value());
          CHECK(largest_difference(called, rows_in_double(dispatched.output.value())) == 0);
        } else {
          CHECK_THROWS_WITH(kind(queries, source, {offsets}, {}), Contains("no experts of its own"));
        }
      }
    }
  }
}

TEST_CASE("gradients of dispatcher attention reach experts of each sequence", "[dispatcher_kind]") {
  const std::vector<std::int64_t> lengths{5, 0, 1, 4};
  const Offsets offsets = Offsets::from_lengths(lengths);
  const Tensor rows = normal({10, 6}, 1, DType::f64);
  for (const auto mask : {ops::AttentionMask::causal, ops::AttentionMask::bidirectional}) {
    auto kind = make({.experts = 3, .own_experts = false}, mask);
    check_module(kind, normal({4, 3, 6}, 3, DType::f64),
                 [&](const Var& experts) { return kind.dispatch(rows, rows, experts, {offsets}).output; });
    auto own = make({.experts = 3, .heads = nn::ExpertHeads::own}, mask);
    check_module(own, rows, [&](const Var& x) { return own(x, x, {offsets}, {}); });
  }
}

TEST_CASE("a dispatcher's state refuses bytes that no events leave", "[dispatcher_kind]") {
  const nn::DispatcherKind kind = nn::DispatcherKind::make({.experts = 3}, {.width = 6, .heads = 2}, RngKey{1});
  nn::DispatcherKind::State state = kind.initial_state();
  std::string empty, one;
  state.save(empty);
  const Tensor row = normal({1, 6}, 1);
  kind.step(state, row, row, {});
  state.save(one);
  CHECK(one.size() == 8 * 3 * (6 + 2 * 2));
  const auto load = [&](const std::string& bytes, std::int64_t events) {
    nn::DispatcherKind::State read = kind.initial_state();
    ByteReader reader(bytes, "state");
    read.load(reader, events);
    return read.gathered.events;
  };
  CHECK(load(one, 1) == 1);
  CHECK(load(empty, 0) == 0);
  CHECK_THROWS_AS(load(empty, 1), IoError);
  CHECK_THROWS_AS(load(one, 0), IoError);
}

TEST_CASE("dispatcher attention refuses what makes no sense", "[dispatcher_kind]") {
  CHECK_THROWS_WITH(nn::DispatcherKind::make({.experts = 0}, {.width = 6, .heads = 2}, RngKey{1}),
                    Contains("at least one expert"));
  CHECK_THROWS_WITH(nn::DispatcherKind::make({}, {.width = 6, .heads = 4}, RngKey{1}),
                    Contains("divides by the heads"));
  CHECK_FALSE(make({}, ops::AttentionMask::bidirectional).has_state());
}

TEST_CASE("a dispatcher's state is as good after many events", "[dispatcher_kind][slow]") {
  const std::int64_t events = 200000;
  nn::DispatcherKind kind = nn::DispatcherKind::make({.experts = 8}, {.width = 16, .heads = 2}, RngKey{4});
  nn::DispatcherKind exact = kind;
  nn::convert(exact, DType::f64);
  const Tensor rows = normal({events, 16}, 1);
  const Tensor wide = rows.to(DType::f64);
  const Rows whole = rows_in_double(exact(wide, wide, {Offsets::single(events)}, {}).value());
  nn::DispatcherKind::State state = kind.initial_state();
  double most = 0;
  for (std::int64_t t = 0; t < events; ++t) {
    const Tensor row = rows.slice(0, t, t + 1);
    const Tensor got = kind.step(state, row, row, {.place = t}).value();
    if (t % 1000 == 0 || t >= events - 100) {
      most = std::max(most, largest_difference(rows_in_double(got), {whole[static_cast<std::size_t>(t)]}));
    }
  }
  CHECK(most < 1e-5);
}

TEST_CASE("shares that the last row reads make its output", "[dispatcher_kind]") {
  const std::vector<std::int64_t> lengths{1, 7, 40};
  const Offsets offsets = Offsets::from_lengths(lengths);
  const Tensor queries = normal({48, 6}, 1, DType::f64), source = normal({48, 6}, 2, DType::f64);
  for (const auto mask : {ops::AttentionMask::causal, ops::AttentionMask::bidirectional}) {
    for (const auto heads : {nn::ExpertHeads::mixed, nn::ExpertHeads::own}) {
      const nn::DispatcherKind kind = make({.experts = 4, .heads = heads}, mask);
      const auto read = kind.last_read(queries, source, kind.experts, {offsets});
      const Rows outputs = rows_in_double(kind(queries, source, {offsets}, {}).value());
      for (std::int64_t i = 0; i < 3; ++i) {
        const Rows values =
            times(rows_in_double(read.gathered.slice(0, i, i + 1).contiguous()), kind.expert_value.value());
        const Rows shares = rows_in_double(read.shares.slice(0, i, i + 1).contiguous());
        Rows row(1, std::vector<double>(6));
        for (std::size_t h = 0; h < 2; ++h) {
          double total = 0;
          for (std::size_t e = 0; e < 4; ++e) {
            total += shares[h][e];
            for (std::size_t c = 3 * h; c < 3 * h + 3; ++c) row[0][c] += shares[h][e] * values[e][c];
          }
          CHECK(total == Approx(1));
        }
        const Rows last{outputs[static_cast<std::size_t>(offsets.at(i + 1) - 1)]};
        CHECK(largest_difference(linear_rows(kind.output, row), last) < 1e-12);
      }
    }
  }
  const nn::DispatcherKind kind = make({.experts = 4}, ops::AttentionMask::causal);
  CHECK_THROWS_WITH(
      kind.last_read(queries, source, kind.experts, {Offsets::from_lengths(std::vector<std::int64_t>{48, 0})}),
      Contains("needs rows in each sequence"));
}

}  // namespace dispatcher_kind_test
