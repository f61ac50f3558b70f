#include "tally/ops/memory/embedding_bag.h"

#include "tally/autograd/tape.h"
#include "tally/core/stable_order.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/embedding_bag.h"
#include "tally/ops/memory/memory_gradients.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "embedding_bag";

struct EmbeddingBagRule {
  static constexpr std::string_view name = kName;
  kernels::BagPlan plan;
  Shape table_shape;
  Saved table, indices, weights;

  void backward(BackwardContext& g) const {
    const Tensor& gradient = g.cotangent();
    if (g.needs(0)) g.give(0, detail::bag_gradient(plan, indices.get(), weights.get(), gradient, table_shape));
    if (!g.needs(1)) return;
    Tensor to({plan.bags, plan.size}, gradient.dtype());
    dispatch_floating(gradient.dtype(), name, [&]<class T>(T) {
      kernels::bag_weights_backward(plan, table.get().data<T>(), indices.get().data<std::int64_t>(), gradient.data<T>(),
                                    to.mutable_data<T>());
    });
    g.give(1, std::move(to));
  }
};

}  // namespace

RowGrad detail::bag_gradient(const kernels::BagPlan& plan, const Tensor& indices, const Tensor& weights,
                             const Tensor& gradient, const Shape& table) {
  const auto* index = indices.data<std::int64_t>();
  const std::vector<std::int64_t> order = stable_order(indices.span<std::int64_t>(), table[0]);
  std::vector<std::int64_t> rows, first;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (!rows.empty() && rows.back() == index[order[i]]) continue;
    rows.push_back(index[order[i]]);
    first.push_back(static_cast<std::int64_t>(i));
  }
  first.push_back(static_cast<std::int64_t>(order.size()));
  const auto count = static_cast<std::int64_t>(rows.size());
  Tensor values({count, plan.width}, gradient.dtype());
  dispatch_floating(gradient.dtype(), kName, [&]<class T>(T) {
    kernels::bag_rows_backward(plan, weights.data<T>(), gradient.data<T>(), order.data(), first.data(), count,
                               values.mutable_data<T>());
  });
  return {Tensor::from(rows, {count}), std::move(values), table};
}

Var embedding_bag(const Var& table, const Tensor& indices, const Var& weights) {
  check<DTypeError>(is_floating(table.dtype()) && weights.dtype() == table.dtype() && indices.dtype() == DType::i64,
                    kName, "needs a table and weights of one floating type and indices i64; got ", table.dtype(), ", ",
                    weights.dtype(), " and ", indices.dtype());
  check<ShapeError>(table.rank() == 2 && indices.rank() == 2 && weights.shape() == indices.shape(), kName,
                    "needs a table [N, D], indices [T, m] and weights [T, m]; got ", table.shape(), ", ",
                    indices.shape(), " and ", weights.shape());
  const Tensor rows = table.value().contiguous(), index = indices.contiguous(), factors = weights.value().contiguous();
  const auto* at = index.data<std::int64_t>();
  for (std::int64_t i = 0; i < index.numel(); ++i) {
    check<IndexError>(at[i] >= 0 && at[i] < table.dim(0), kName, "index ", at[i], " at position ", i,
                      " is outside [0, ", table.dim(0), ")");
  }
  const kernels::BagPlan plan{index.dim(0), index.dim(1), table.dim(1)};
  Tensor y({plan.bags, plan.width}, table.dtype());
  dispatch_floating(table.dtype(), kName, [&]<class T>(T) {
    kernels::sum_bags(plan, rows.data<T>(), at, factors.data<T>(), y.mutable_data<T>());
  });
  EmbeddingBagRule rule{plan, table.shape(), Saved(rows, weights.tracked()), Saved(index), Saved(factors)};
  return record(std::move(rule), {&table, &weights}, std::move(y));
}

void entries::add_embedding_bag(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary = "Weighted sums of rows of a table; the table's gradient is sparse.",
      .inputs = {{"table", "[N, D]"},
                 {"indices", "[T, m]", InputKind::integer, false, "i64 in [0, N)"},
                 {"weights", "[T, m]"}},
      .outputs = {{"sums", "[T, D]"}},
      .call = [](std::span<const Var> in, const OpOptions&) -> std::vector<Var> {
        return {embedding_bag(in[0], in[1].value(), in[2])};
      },
      .samples =
          [] {
            const auto of = [](std::int64_t n, std::int64_t d, std::int64_t bags, std::int64_t size,
                               std::uint64_t stream) {
              return std::vector<Tensor>{sample_normal({n, d}, stream), sample_integers({bags, size}, stream + 1, n),
                                         sample_normal({bags, size}, stream + 2)};
            };
            return std::vector<OpSample>{
                {"odd, repeated", of(5, 3, 4, 7, 1)}, {"one", of(1, 1, 1, 1, 4)},
                {"no bags", of(3, 2, 0, 4, 7)},       {"empty bags", of(3, 2, 4, 0, 10)},
                {"no columns", of(3, 0, 4, 2, 13)},   {"rows never used", of(90, 33, 3, 2, 16)},
                {"many", of(40, 70, 300, 5, 19)},
            };
          },
      .errors =
          [] {
            const Tensor table = sample_normal({3, 2}, 1), weights = sample_normal({1, 3}, 2);
            return std::vector<OpError>{
                {"too large",
                 {table, Tensor::from<std::int64_t>({0, 2, 3}, {1, 3}), weights},
                 {},
                 "index 3 at position 2 is outside [0, 3)"},
                {"negative",
                 {table, Tensor::from<std::int64_t>({-1, 2, 0}, {1, 3}), weights},
                 {},
                 "index -1 at position 0"},
                {"weights", {table, sample_integers({3, 1}, 1, 3), weights}, {}, "weights [T, m]; got"},
                {"type of indices", {table, weights, weights}, {}, "indices i64"},
            };
          },
      .large =
          [] {
            return OpSample{
                "large",
                {sample_normal({65536, 64}, 1), sample_integers({1024, 128}, 2, 65536), sample_normal({1024, 128}, 3)}};
          },
  });
}

}  // namespace tally::ops
