#include "tally/ops/recurrent/last_rows.h"

#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/last_rows.h"
#include "tally/ops/lookup/lookup_call.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "last_rows";

struct LastRowsRule {
  static constexpr std::string_view name = kName;
  Offsets offsets;
  Shape rows;
  std::int64_t count;
  Saved bounds;  // of the offsets: refuses ones that were overwritten

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      Tensor gx, ginitial;
      if (g.needs(0)) gx = Tensor(rows, gy.dtype());
      if (g.needs(1)) ginitial = Tensor(gy.shape(), gy.dtype());
      kernels::last_rows_gradient(offsets.bounds(), count, rows[1], gy.data<T>(),
                                  gx.defined() ? gx.mutable_data<T>() : nullptr,
                                  ginitial.defined() ? ginitial.mutable_data<T>() : nullptr);
      if (g.needs(0)) g.give(0, std::move(gx));
      if (g.needs(1)) g.give(1, std::move(ginitial));
    });
  }
};

OpSample sample(std::string name, const std::vector<std::int64_t>& lengths, std::int64_t width, std::int64_t count,
                bool initial = true) {
  const std::int64_t rows = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  const Shape before{static_cast<std::int64_t>(lengths.size()), count, width};
  return {std::move(name),
          {sample_normal({rows, width}, 1), initial ? sample_normal(before, 2) : Tensor(),
           Offsets::from_lengths(lengths).tensor()},
          {{"count", count}}};
}

}  // namespace

Var last_rows(const Var& x, const Var& initial, const Offsets& offsets, std::int64_t count) {
  detail::check_one_type(kName, {{"x", &x}, {"initial", &initial}});
  check<ValueError>(count >= 0, kName, "needs a count of rows; got ", count);
  check<ShapeError>(x.rank() == 2 && (!initial.defined() || initial.shape() == Shape{offsets.count(), count, x.dim(1)}),
                    kName, "needs x [T, D] and initial [N, count, D] or none; got x ", x.shape(),
                    initial.defined() ? tally::detail::join(", initial ", initial.shape()) : "", ", ", offsets.count(),
                    " sequences and count ", count);
  offsets.check_rows(x.dim(0), kName);
  const Tensor rows = x.value().contiguous(), first = initial.defined() ? initial.value().contiguous() : Tensor();
  Tensor last({offsets.count(), count, x.dim(1)}, x.dtype());
  dispatch_floating(x.dtype(), kName, [&]<class T>(T) {
    kernels::last_rows(offsets.bounds(), count, x.dim(1), rows.data<T>(), first.defined() ? first.data<T>() : nullptr,
                       last.mutable_data<T>());
  });
  return record(LastRowsRule{offsets, x.shape(), count, Saved(offsets.tensor())}, {&x, &initial}, std::move(last));
}

void entries::add_last_rows(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary = "The last rows of each packed sequence, of those before it where it is too short.",
      .inputs = {{"x", "[T, D]"},
                 {"initial", "[N, count, D]", InputKind::differentiable, true,
                  "rows before each sequence, oldest first; absent: zeros"},
                 {"offsets", "[N + 1]", InputKind::integer}},
      .options = {{"count", std::int64_t{1}, "rows of each sequence"}},
      .outputs = {{"rows", "[N, count, D]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {last_rows(in[0], in[1], Offsets(in[2].value()), options.integer("count", 1))};
      },
      .samples =
          [] {
            return std::vector<OpSample>{sample("odd", {3, 0, 1, 5}, 3, 2),
                                         sample("shorter than the rows", {1, 0, 2, 4, 3}, 2, 4),
                                         sample("zeros before", {1, 0, 2, 4, 3}, 2, 4, false),
                                         sample("one", {1}, 1, 1),
                                         sample("one, zeros before", {3, 0, 1}, 1, 1, false),
                                         sample("no rows", {2, 1}, 3, 0),
                                         sample("no sequence", {}, 3, 2),
                                         sample("empty sequences", {0, 0}, 3, 2),
                                         sample("no columns", {2, 1}, 0, 2),
                                         sample("wide", {4, 1}, 67, 3),
                                         sample("many sequences", std::vector<std::int64_t>(130, 2), 1, 3),
                                         sample("long", {300}, 2, 3)};
          },
      .errors =
          [] {
            const Offsets offsets = Offsets::single(3);
            const Tensor x = sample_normal({3, 2}, 1);
            const OpOptions two{{"count", std::int64_t{2}}};
            return std::vector<OpError>{
                {"rank", {sample_normal({3}, 1), {}, offsets.tensor()}, two, "needs x [T, D]"},
                {"initial", {x, sample_normal({1, 3, 2}, 1), offsets.tensor()}, two, "initial [1, 3, 2], 1 sequences"},
                {"types",
                 {x, sample_normal({1, 2, 2}, 1).to(DType::f32), offsets.tensor()},
                 two,
                 "inputs of one floating type"},
                {"count", {x, {}, offsets.tensor()}, {{"count", std::int64_t{-1}}}, "a count of rows; got -1"},
                {"rows", {x, {}, Offsets::single(4).tensor()}, two, "number of rows 3; got 4"}};
          },
      .large = [] { return sample("large", std::vector<std::int64_t>(128, 200), 128, 3); },
  });
}

}  // namespace tally::ops
