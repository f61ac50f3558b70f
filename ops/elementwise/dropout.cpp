#include "tally/ops/elementwise/dropout.h"

#include <algorithm>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/dropout.h"

namespace tally::ops {
namespace {

// Elements of one block of rows: drawing the mask costs several nanoseconds a vector, so blocks are small.
constexpr std::int64_t kBlockElements = 1 << 14;

Tensor apply(const kernels::DropoutMask& mask, std::uint64_t first_row, const Tensor& x) {
  Tensor y(x.shape(), x.dtype());
  const std::int64_t columns = x.dim(-1), rows = x.shape().without(-1).numel();
  dispatch_floating(x.dtype(), "dropout", [&]<class T>(T) {
    const T* from = x.data<T>();
    T* to = y.mutable_data<T>();
    parallel_for(rows, std::max<std::int64_t>(kBlockElements / std::max<std::int64_t>(columns, 1), 1),
                 [&](std::int64_t begin, std::int64_t end) {
                   kernels::apply_dropout(mask, first_row + static_cast<std::uint64_t>(begin), end - begin, columns,
                                          from + begin * columns, to + begin * columns);
                 });
  });
  return y;
}

struct DropoutRule {
  static constexpr std::string_view name = "dropout";
  kernels::DropoutMask mask;
  std::uint64_t first_row;

  void backward(BackwardContext& g) const { g.give(0, apply(mask, first_row, g.cotangent())); }
};

}  // namespace

void check_dropout(std::string_view op, const Shape& x, const DropoutOptions& options) {
  check<ShapeError>(x.rank() >= 1, op, "needs x [..., D]; got ", x);
  check<ValueError>(options.rate >= 0 && options.rate < 1, op, "needs a rate in [0, 1); got ", options.rate);
  constexpr std::uint64_t kRows = std::uint64_t{1} << 32;
  const auto rows = static_cast<std::uint64_t>(x.without(-1).numel());
  check<ValueError>(options.first_row <= kRows && rows <= kRows - options.first_row, op, "needs rows below 2^32; got ",
                    rows, " rows from ", options.first_row);
}

Var dropout(const Var& x, const DropoutOptions& options) {
  check<DTypeError>(is_floating(x.dtype()), "dropout", "needs f32 or f64; got ", x.dtype());
  check_dropout("dropout", x.shape(), options);
  if (options.rate == 0) return x;
  const kernels::DropoutMask mask = kernels::dropout_mask(options.rate, options.key);
  return record(DropoutRule{mask, options.first_row}, {&x}, apply(mask, options.first_row, x.value().contiguous()));
}

void entries::add_dropout(Catalog& catalog) {
  catalog.add({
      .name = "dropout",
      .summary = "Sets elements to zero at random, by a key, and scales the others by 1 / (1 - rate).",
      .inputs = {{"x", "[..., D]"}},
      .options = {{"rate", 0.0, "share of elements set to zero, in [0, 1)"},
                  {"seed", std::int64_t{0}, "of the key"},
                  {"stream", std::int64_t{0}, "of the key"},
                  {"first_row", std::int64_t{0}, "row of the mask that x begins with"}},
      .outputs = {{"y", "[..., D]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {dropout(in[0], {options.number("rate", 0), options.key(),
                                static_cast<std::uint64_t>(options.integer("first_row", 0))})};
      },
      .samples =
          [] {
            const std::int64_t seed = 7, row = 4000000000;
            return std::vector<OpSample>{
                {"odd", {sample_normal({5, 7}, 1)}, {{"rate", 0.3}, {"seed", seed}}},
                {"batch, far rows",
                 {sample_normal({2, 3, 5}, 2)},
                 {{"rate", 0.5}, {"stream", seed}, {"first_row", row}}},
                {"one", {sample_normal({1}, 3)}, {{"rate", 0.1}}},
                {"rate zero", {sample_normal({3, 2}, 4)}, {{"rate", 0.0}}},
                {"nearly all", {sample_normal({4, 40}, 5)}, {{"rate", 0.95}, {"seed", seed}}},
                {"no rows", {sample_normal({0, 3}, 6)}, {{"rate", 0.3}}},
                {"no columns", {sample_normal({3, 0}, 7)}, {{"rate", 0.3}}},
                {"wide", {sample_normal({2, 1100}, 8)}, {{"rate", 0.2}, {"seed", seed}}},
                {"extreme", {sample_normal({4, 9}, 9, 1e30)}, {{"rate", 0.4}}, false},
            };
          },
      .errors =
          [] {
            const Tensor x = sample_normal({2, 3}, 1);
            return std::vector<OpError>{
                {"rate", {x}, {{"rate", 1.0}}, "rate in [0, 1); got 1"},
                {"negative rate", {x}, {{"rate", -0.5}}, "rate in [0, 1)"},
                {"rows", {x}, {{"rate", 0.5}, {"first_row", std::int64_t{4294967295}}}, "rows below 2^32"},
                {"scalar", {sample_normal({}, 1)}, {{"rate", 0.5}}, "needs x [..., D]"},
            };
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({8192, 256}, 1)}, {{"rate", 0.2}}};
          },
      .variations =
          [] {
            return std::vector<OpVariations>{{{"rows", {sample_normal({3, 5}, 11)}},
                                              {{"rate", {0.3}},
                                               {"seed", {std::int64_t{5}}},
                                               {"stream", {std::int64_t{6}}},
                                               {"first_row", {std::int64_t{11}}}}}};
          },
  });
}

}  // namespace tally::ops
