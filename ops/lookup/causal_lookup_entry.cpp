#include <cmath>
#include <limits>

#include "tally/ops/entries.h"
#include "tally/ops/lookup/causal_lookup.h"
#include "tally/ops/lookup/lookup_call.h"

namespace tally::ops {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Sizes {
  std::int64_t width, value_width;
};

/// With both gates; `strength` of the decay.
std::vector<Tensor> inputs_of(const std::vector<std::int64_t>& lengths, const std::vector<std::int64_t>& places,
                              Sizes size, double strength, std::uint64_t stream) {
  const Offsets offsets = Offsets::from_lengths(lengths);
  const std::int64_t rows = offsets.total(), lookups = static_cast<std::int64_t>(places.size());
  return {sample_normal({lookups, size.width}, stream),
          sample_normal({rows, size.width}, stream + 1),
          sample_normal({rows, size.value_width}, stream + 2),
          detail::sample_log_decay(rows, stream + 3, strength),
          detail::sample_gain(rows, stream + 4),
          Tensor::from(places, {lookups}),
          offsets.tensor()};
}

/// The same with decays of exactly 0 at some rows.
std::vector<Tensor> with_resets(std::vector<Tensor> inputs, const std::vector<std::int64_t>& rows, double log_decay) {
  for (const std::int64_t row : rows) inputs[3].mutable_data<double>()[row] = log_decay;
  return inputs;
}

/// The same without gates: log_decay, gain or both.
std::vector<Tensor> without(std::vector<Tensor> inputs, const std::vector<std::size_t>& absent) {
  for (const std::size_t i : absent) inputs[i] = Tensor();
  return inputs;
}

std::vector<OpSample> samples() {
  std::vector<OpSample> all;
  const auto add = [&](std::string name, std::vector<Tensor> inputs, bool gradient = true) {
    all.push_back({std::move(name), std::move(inputs), {}, gradient});
  };
  const auto drawn = [](std::int64_t count, std::int64_t rows) { return detail::sample_places(count, rows, 77); };
  // Documents that are empty, of one row, and never looked up; places in any order, and one twice.
  add("odd", inputs_of({3, 0, 1, 5, 2}, {8, 0, 3, 8, 2, 5}, {3, 5}, 0.5, 1));
  add("one", inputs_of({1}, {0}, {1, 1}, 1, 6));
  add("one row", inputs_of({1}, {0}, {3, 5}, 1, 301));
  add("empty", inputs_of({}, {}, {4, 2}, 1, 11));
  add("empty documents", inputs_of({0, 0}, {}, {4, 2}, 1, 16));
  add("no lookups", inputs_of({4, 2}, {}, {3, 2}, 1, 21));
  add("many at a row", inputs_of({5}, std::vector<std::int64_t>(70, 3), {2, 3}, 0.3, 26));
  // Lookups at the borders of chunks, and only there.
  for (const std::int64_t length : {63, 64, 65})
    add("chunk of " + std::to_string(length), inputs_of({length, 2}, {length - 1, 0}, {3, 2}, 0.02, 31));
  add("borders of chunks", inputs_of({200}, {128, 63, 127, 64, 192, 191}, {2, 3}, 0.02, 36));
  add("chunks without lookups", inputs_of({330}, {300, 5, 4}, {3, 2}, 0.005, 41));
  add("long", inputs_of({150, 1, 600}, drawn(40, 751), {2, 3}, 0.01, 46));
  add("strong decay", inputs_of({150}, drawn(60, 150), {3, 2}, 8, 51));
  for (const std::vector<std::size_t>& absent : {std::vector<std::size_t>{3}, {4}, {3, 4}}) {
    const std::string name = absent.size() > 1 ? "neither gate" : absent[0] == 3 ? "no decay" : "no gain";
    add(name, without(inputs_of({4, 0, 1, 3}, {6, 1, 7, 1}, {3, 5}, 0.5, 91), absent));
    add(name + ", in chunks", without(inputs_of({140, 3}, drawn(20, 143), {3, 4}, 0.02, 56), absent));
  }
  add("many at rows of a long one", inputs_of({130}, drawn(300, 130), {2, 2}, 0.05, 61));
  add("wide", inputs_of({6, 0, 70}, {75, 2, 5, 5, 40}, {67, 134}, 0.1, 66));
  // e^-800 is 0: the state is cleared, within a chunk, at its beginning and at a document's.
  add("resets", with_resets(inputs_of({150, 5}, drawn(50, 155), {3, 2}, 0.02, 71), {10, 11, 64, 100, 150}, -800));
  add("minus infinity", with_resets(inputs_of({80, 5}, drawn(30, 85), {3, 2}, 0.02, 76), {10, 11, 64, 80}, -kInfinity),
      false);
  std::vector<Tensor> borders = inputs_of({9}, {8, 4}, {3, 2}, 0.1, 81);
  borders[3].fill(0);
  for (std::int64_t i = 0; i < 9; ++i) borders[4].mutable_data<double>()[i] = static_cast<double>(i % 2);
  add("gates at their bounds", borders, false);
  std::vector<Tensor> extreme = inputs_of({70, 3}, {72, 66, 3}, {4, 3}, 1e-3, 86);
  for (const std::size_t i : {1, 2}) {
    for (double& x : extreme[i].mutable_span<double>()) x *= 1e15;
  }
  add("extreme", extreme, false);
  return all;
}

}  // namespace

void entries::add_causal_lookup(Catalog& catalog) {
  catalog.add({
      .name = "causal_lookup",
      .summary = "Lookups S_t^T q at any time in S_t = a_t S_(t-1) + b_t k_t v_t^T, in chunks.",
      .inputs = {{"q", "[M, K]"},
                 {"k", "[T, K]"},
                 {"v", "[T, V]"},
                 {"log_decay", "[T]", InputKind::differentiable, true, "of a_t, at most 0; absent: a = 1"},
                 {"gain", "[T]", InputKind::differentiable, true, "b_t in [0, 1]; absent: b = 1"},
                 {"places", "[M]", InputKind::integer, false, "i64, the row after which each query reads"},
                 {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each document begins, and T"}},
      .outputs = {{"output", "[M, V]"}},
      .call = [](std::span<const Var> in, const OpOptions&) -> std::vector<Var> {
        return {causal_lookup(in[0], in[1], in[2], in[3], in[4], in[5].value(), Offsets(in[6].value()))};
      },
      .samples = samples,
      .errors =
          [] {
            const auto good = [] { return inputs_of({2, 3}, {4, 1}, {3, 2}, 1, 1); };
            const auto replaced = [&](std::size_t input, Tensor tensor) {
              std::vector<Tensor> inputs = good();
              inputs[input] = std::move(tensor);
              return inputs;
            };
            const auto spoiled = [&](std::size_t input, std::int64_t element, double value) {
              std::vector<Tensor> inputs = good();
              inputs[input].mutable_data<double>()[element] = value;
              return inputs;
            };
            return std::vector<OpError>{
                {"keys", replaced(1, sample_normal({5, 4}, 1)), {}, "got q [2, 3], k [5, 4] and v [5, 2]"},
                {"values", replaced(2, sample_normal({4, 2}, 1)), {}, "needs q [M, K], k [T, K] and v [T, V]"},
                {"no columns", replaced(2, sample_normal({5, 0}, 1)), {}, "with columns"},
                {"types", replaced(0, sample_integers({2, 3}, 1, 3)), {}, "one floating type"},
                {"type of a gate", replaced(4, sample_normal({5}, 1).to(DType::f32)), {}, "gain f32"},
                {"offsets", replaced(6, Offsets::single(6).tensor()), {}, "number of rows 5; got 6"},
                {"decays", replaced(3, sample_normal({4}, 1)), {}, "needs log_decay [T] with T = 5; got [4]"},
                {"gains", replaced(4, sample_normal({5, 1}, 1)), {}, "needs gain [T] with T = 5; got [5, 1]"},
                {"places", replaced(5, sample_integers({3}, 1, 5)), {}, "needs places [M] with M = 2"},
                {"place", replaced(5, Tensor::from<std::int64_t>({5, 0}, {2})), {}, "in [0, 5); got 5 for query 0"},
                {"key", spoiled(1, 7, std::nan("")), {}, "needs finite k; got one that is not in row 2"},
                {"value", spoiled(2, 8, kInfinity), {}, "needs finite v; got one that is not in row 4"},
                {"growth", spoiled(3, 2, 0.5), {}, "needs log_decay of at most 0; got 0.5 at row 2"},
                {"no number", spoiled(3, 1, std::nan("")), {}, "needs log_decay of at most 0; got nan at row 1"},
                {"gain above", spoiled(4, 0, 1.5), {}, "needs gain in [0, 1]; got 1.5 at row 0"},
                {"gain below", spoiled(4, 3, -0.5), {}, "needs gain in [0, 1]; got -0.5 at row 3"}};
          },
      .large =
          [] {
            const std::vector<std::int64_t> lengths(16, 750);
            return OpSample{
                "large", inputs_of(lengths, detail::sample_places(400, 16 * 750, 77), {64, 64}, 0.01, 1), {}};
          },
  });
}

}  // namespace tally::ops
