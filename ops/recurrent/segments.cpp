#include "tally/ops/recurrent/segments.h"

#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/segments.h"
#include "tally/ops/recurrent/last_rows.h"
#include "tally/ops/tensor/shape.h"

namespace tally::ops {
namespace {

void check_segments(std::string_view op, const Var& x, const Offsets& offsets) {
  check<DTypeError>(is_floating(x.dtype()), op, "needs f32 or f64; got ", x.dtype(), x.shape());
  check<ShapeError>(x.rank() == 2, op, "needs x [T, D]; got ", x.shape());
  offsets.check_rows(x.dim(0), op);
}

template <bool kMean>
struct SegmentSumsRule {
  static constexpr std::string_view name = kMean ? "segment_mean" : "segment_sum";
  Offsets offsets;
  Shape rows;
  Saved bounds;  // of the offsets: refuses ones that were overwritten

  void backward(BackwardContext& g) const {
    bounds.get();
    Tensor gx(rows, g.cotangent().dtype());
    dispatch_floating(gx.dtype(), name, [&]<class T>(T) {
      kernels::segment_sums_gradient(offsets.bounds(), rows[1], kMean, g.cotangent().data<T>(), gx.mutable_data<T>());
    });
    g.give(0, std::move(gx));
  }
};

template <bool kMean>
Var segment_sums(const Var& x, const Offsets& offsets) {
  using Rule = SegmentSumsRule<kMean>;
  check_segments(Rule::name, x, offsets);
  const Tensor rows = x.value().contiguous();
  Tensor y({offsets.count(), x.dim(1)}, x.dtype());
  dispatch_floating(x.dtype(), Rule::name, [&]<class T>(T) {
    kernels::segment_sums(offsets.bounds(), x.dim(1), kMean, rows.data<T>(), y.mutable_data<T>());
  });
  return record(Rule{offsets, x.shape(), Saved(offsets.tensor())}, {&x}, std::move(y));
}

struct SegmentMaxRule {
  static constexpr std::string_view name = "segment_max";
  Shape rows;
  Saved where;

  void backward(BackwardContext& g) const {
    const Tensor& gy = g.cotangent();
    Tensor gx = Tensor::zeros(rows, gy.dtype());
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      kernels::place_where_known(where.get().data<std::int64_t>(), gy.data<T>(), gy.numel(), gx.mutable_data<T>());
    });
    g.give(0, std::move(gx));
  }
};

}  // namespace

Var segment_sum(const Var& x, const Offsets& offsets) { return segment_sums<false>(x, offsets); }
Var segment_mean(const Var& x, const Offsets& offsets) { return segment_sums<true>(x, offsets); }

Var segment_max(const Var& x, const Offsets& offsets) {
  check_segments("segment_max", x, offsets);
  const Tensor rows = x.value().contiguous();
  Tensor y({offsets.count(), x.dim(1)}, x.dtype()), where(y.shape(), DType::i64);
  dispatch_floating(x.dtype(), "segment_max", [&]<class T>(T) {
    kernels::segment_max(offsets.bounds(), x.dim(1), rows.data<T>(), y.mutable_data<T>(),
                         where.mutable_data<std::int64_t>());
  });
  return record(SegmentMaxRule{x.shape(), Saved(std::move(where), x.tracked())}, {&x}, std::move(y));
}

Var segment_last(const Var& x, const Offsets& offsets) {
  check_segments("segment_last", x, offsets);
  return reshape(last_rows(x, {}, offsets, 1), Shape{offsets.count(), x.dim(1)});
}

// ---- Catalog

namespace {

OpSample segment_sample(std::string name, const std::vector<std::int64_t>& lengths, std::int64_t width) {
  const std::int64_t rows = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  return {std::move(name), {sample_normal({rows, width}, 1), Offsets::from_lengths(lengths).tensor()}};
}

void add_segment(Catalog& catalog, const std::string& name, const std::string& summary,
                 Var (*call)(const Var&, const Offsets&), bool kinks = false) {
  catalog.add({
      .name = name,
      .summary = summary + " of each packed sequence; 0 of none.",
      .inputs = {{"x", "[T, D]"}, {"offsets", "[N + 1]", InputKind::integer}},
      .outputs = {{"y", "[N, D]"}},
      .call = [call](std::span<const Var> in, const OpOptions&) -> std::vector<Var> {
        return {call(in[0], Offsets(in[1].value()))};
      },
      .samples =
          [kinks] {
            std::vector<OpSample> samples{
                segment_sample("odd", {3, 0, 1, 5}, 3), segment_sample("wide", {4, 1}, 67),
                segment_sample("long", {300}, 2),       segment_sample("many", std::vector<std::int64_t>(130, 2), 1),
                segment_sample("one", {1}, 1),          segment_sample("empty sequences", {0, 0}, 2),
                segment_sample("no sequence", {}, 2),   segment_sample("no columns", {2, 1}, 0)};
            const Tensor ties = Tensor::from({1.0, -2.0, 1.0, -2.0, 0.5, -2.0}, {3, 2});
            samples.push_back({"ties", {ties, Offsets::single(3).tensor()}, {}, true, kinks});
            samples.push_back(
                {"extreme", {Tensor::from({1e30, -1e30, 1e-30, 3.0}, {4, 1}), Offsets::single(4).tensor()}, {}, false});
            return samples;
          },
      .errors =
          [] {
            const Tensor offsets = Offsets::single(3).tensor();
            return std::vector<OpError>{{"rank", {sample_normal({3}, 1), offsets}, {}, "needs x [T, D]"},
                                        {"rows", {sample_normal({4, 2}, 1), offsets}, {}, "number of rows"},
                                        {"integers", {sample_integers({3, 2}, 1, 5), offsets}, {}, "needs f32 or f64"}};
          },
      .large = [] { return segment_sample("large", std::vector<std::int64_t>(512, 50), 64); },
      .kinks = kinks,
  });
}

}  // namespace

void entries::add_segments(Catalog& catalog) {
  add_segment(catalog, "segment_sum", "Sum of the rows", segment_sum);
  add_segment(catalog, "segment_mean", "Mean of the rows", segment_mean);
  add_segment(catalog, "segment_max", "Largest element of each column", segment_max, true);
  add_segment(catalog, "segment_last", "Last row", segment_last);
}

}  // namespace tally::ops
