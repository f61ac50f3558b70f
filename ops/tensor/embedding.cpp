#include "tally/ops/tensor/embedding.h"

#include <algorithm>

#include "tally/autograd/tape.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/entries.h"

namespace tally::ops {
namespace {

// Elements copied by one block of rows.
constexpr std::int64_t kBlockElements = 1 << 15;

template <class Index>
void check_indices(const Tensor& indices, std::int64_t bound) {
  const Index* at = indices.data<Index>();
  for (std::int64_t i = 0; i < indices.numel(); ++i) {
    check<IndexError>(at[i] >= 0 && at[i] < bound, "embedding", "index ", at[i], " at position ", i, " is outside [0, ",
                      bound, ")");
  }
}

template <class T, class Index>
void copy_rows(T* out, const T* table, const Index* indices, std::int64_t count, std::int64_t width, double factor) {
  parallel_for(count, std::max<std::int64_t>(kBlockElements / std::max<std::int64_t>(width, 1), 1),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i) {
                   std::copy_n(table + static_cast<std::int64_t>(indices[i]) * width, width, out + i * width);
                   if (factor != 1) kernels::scale(out + i * width, static_cast<T>(factor), width);
                 }
               });
}

struct EmbeddingRule {
  static constexpr std::string_view name = "embedding";
  double factor;
  Shape table_shape;
  Saved indices;

  void backward(BackwardContext& g) const {
    Gradient rows = RowGrad::gather(indices.get(), g.cotangent(), table_shape);
    if (factor != 1) scale(rows, factor);
    g.give(0, std::get<RowGrad>(std::move(rows)));
  }
};

}  // namespace

Var embedding(const Var& table, const Tensor& indices, const EmbeddingOptions& options) {
  check<DTypeError>(is_floating(table.dtype()) && (indices.dtype() == DType::i32 || indices.dtype() == DType::i64),
                    "embedding", "needs a table f32 or f64 and indices i32 or i64; got ", table.dtype(), " and ",
                    indices.dtype());
  check<ShapeError>(table.rank() == 2 && indices.rank() < kMaxRank, "embedding",
                    "needs a table [N, D] and indices of at most ", kMaxRank - 1, " dimensions; got table ",
                    table.shape(), " and indices ", indices.shape());
  const std::int64_t width = table.dim(1), count = indices.numel();
  const Tensor index = indices.contiguous(), rows = table.value().contiguous();
  const bool narrow = index.dtype() == DType::i32;
  if (narrow) {
    check_indices<std::int32_t>(index, table.dim(0));
  } else {
    check_indices<std::int64_t>(index, table.dim(0));
  }
  Tensor y(indices.shape().with_appended(width), table.dtype());
  dispatch_floating(table.dtype(), "embedding", [&]<class T>(T) {
    T* out = y.mutable_data<T>();
    if (narrow) {
      copy_rows(out, rows.data<T>(), index.data<std::int32_t>(), count, width, options.scale);
    } else {
      copy_rows(out, rows.data<T>(), index.data<std::int64_t>(), count, width, options.scale);
    }
  });
  return record(EmbeddingRule{options.scale, table.shape(), Saved(index, table.tracked())}, {&table}, std::move(y));
}

void entries::add_embedding(Catalog& catalog) {
  catalog.add({
      .name = "embedding",
      .summary = "Rows of a table by index, times a factor; the table's gradient is sparse.",
      .inputs = {{"table", "[N, D]"}, {"indices", "[...]", InputKind::integer, false, "i32 or i64 in [0, N)"}},
      .options = {{"scale", 1.0, "factor of every row"}},
      .outputs = {{"rows", "[..., D]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {embedding(in[0], in[1].value(), {options.number("scale", 1)})};
      },
      .samples =
          [] {
            const auto table = [](std::int64_t n, std::int64_t d) { return sample_normal({n, d}, 1); };
            return std::vector<OpSample>{
                {"odd, repeated", {table(5, 3), sample_integers({11}, 2, 5)}},
                {"two dimensions, i32, scaled",
                 {table(4, 7), sample_integers({2, 3}, 3, 4).to(DType::i32)},
                 {{"scale", 1.5}}},
                {"one", {table(1, 1), sample_integers({1}, 4, 1)}},
                {"scalar index", {table(3, 2), sample_integers({}, 5, 3)}},
                {"no indices", {table(3, 2), sample_integers({0}, 6, 3)}},
                {"no columns", {table(3, 0), sample_integers({4}, 7, 3)}},
                {"wide", {table(5, 67), sample_integers({6}, 9, 5)}},
                {"wide, scaled", {table(3, 130), sample_integers({4}, 10, 3).to(DType::i32)}, {{"scale", 0.3}}},
                {"rows never used", {table(50, 2), sample_integers({3}, 8, 50)}, {{"scale", -2.0}}},
            };
          },
      .errors =
          [] {
            const Tensor table = sample_normal({3, 2}, 1);
            return std::vector<OpError>{
                {"too large",
                 {table, Tensor::from<std::int64_t>({0, 2, 3}, {3})},
                 {},
                 "index 3 at position 2 is outside [0, 3)"},
                {"negative", {table, Tensor::from<std::int32_t>({0, -1}, {2})}, {}, "index -1 at position 1"},
                {"rank", {sample_normal({3}, 1), sample_integers({2}, 1, 3)}, {}, "table [N, D]"},
                {"index type", {table, sample_normal({2}, 1)}, {}, "indices i32 or i64"},
            };
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({20000, 64}, 1), sample_integers({8192}, 2, 20000)}};
          },
  });
}

}  // namespace tally::ops
