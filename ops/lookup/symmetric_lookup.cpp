#include "tally/ops/lookup/symmetric_lookup.h"

#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/ops/attention/attention_options.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/packed_symmetric.h"
#include "tally/ops/kernels/symmetric_lookup.h"
#include "tally/ops/lookup/lookup_call.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "symmetric_lookup";

template <class T>
kernels::MatrixRows<const T> rows_of(const Tensor& x) {
  return {x.strided_data<T>(), x.stride(0)};
}

struct SymmetricLookupRule {
  static constexpr std::string_view name = kName;
  Offsets queries;
  Saved bounds;  // of the queries: refuses ones that were overwritten
  Shape packed_shape;
  std::int64_t width;
  Saved packed, q;

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      kernels::SymmetricLookupPlan<T> plan{queries.bounds(), width, {}};
      if (g.needs(0)) {
        Tensor gradient(packed_shape, gy.dtype());
        kernels::symmetric_lookup_gradient(plan, rows_of<T>(q.get()), gy.data<T>(), gradient.mutable_data<T>());
        g.give(0, std::move(gradient));
      }
      if (g.needs(1)) {
        Tensor gradient(gy.shape(), gy.dtype());
        plan.packed = rows_of<T>(packed.get());
        kernels::symmetric_products(plan, rows_of<T>(gy), gradient.mutable_data<T>());
        g.give(1, std::move(gradient));
      }
    });
  }
};

}  // namespace

Var symmetric_lookup(const Var& packed, const Var& q, const Offsets& queries) {
  detail::check_one_type(kName, {{"packed", &packed}, {"q", &q}});
  check<ShapeError>(q.rank() == 2 && q.dim(1) > 0 &&
                        packed.shape() == Shape{queries.count(), kernels::packed_symmetric_size(q.dim(-1))},
                    kName, "needs packed [N, k (k + 1) / 2] with N = ", queries.count(),
                    " and q [M, k] with columns; got packed ", packed.shape(), " and q ", q.shape());
  queries.check_rows(q.dim(0), kName);
  const Tensor pt = detail::with_dense_rows(packed.value()), qt = detail::with_dense_rows(q.value());
  detail::check_finite_rows(kName, "packed", pt);
  Tensor output(q.shape(), q.dtype());
  dispatch_floating(q.dtype(), kName, [&]<class T>(T) {
    const kernels::SymmetricLookupPlan<T> plan{queries.bounds(), q.dim(1), rows_of<T>(pt)};
    kernels::symmetric_products(plan, rows_of<T>(qt), output.mutable_data<T>());
  });
  SymmetricLookupRule rule{queries,  Saved(queries.tensor()), packed.shape(),
                           q.dim(1), Saved(pt, q.tracked()),  Saved(qt, packed.tracked())};
  return record(std::move(rule), {&packed, &q}, std::move(output));
}

namespace {

std::vector<Tensor> inputs_of(const std::vector<std::int64_t>& counts, std::int64_t width, std::uint64_t stream,
                              double deviation = 1) {
  const Offsets queries = Offsets::from_lengths(counts);
  return {sample_normal({queries.count(), kernels::packed_symmetric_size(width)}, stream, deviation),
          sample_normal({queries.total(), width}, stream + 1), queries.tensor()};
}

}  // namespace

void entries::add_symmetric_lookup(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary = "Lookups C q in the packed symmetric matrix of each query's document.",
      .inputs = {{"packed", "[N, k (k + 1) / 2]"},
                 {"q", "[M, k]"},
                 {"queries", "[N + 1]", InputKind::integer, false, "i64, where each document's queries begin, and M"}},
      .outputs = {{"output", "[M, k]"}},
      .call = [](std::span<const Var> in, const OpOptions&) -> std::vector<Var> {
        return {symmetric_lookup(in[0], in[1], Offsets(in[2].value()))};
      },
      .samples =
          [] {
            // Documents without queries, with a few, with so many that they go by products, and in several blocks.
            return std::vector<OpSample>{{"odd", inputs_of({3, 0, 1, 5}, 5, 1)},
                                         {"one", inputs_of({1}, 1, 3)},
                                         {"one row", inputs_of({1}, 5, 301)},
                                         {"empty", inputs_of({}, 4, 5)},
                                         {"no queries", inputs_of({0, 0}, 3, 7)},
                                         {"few and many", inputs_of({4, 5, 2, 9}, 3, 9)},
                                         {"blocks", inputs_of({300, 2}, 3, 11)},
                                         {"segments", inputs_of({4, 6200}, 2, 13), {}, false},
                                         {"wide", inputs_of({2, 7}, 67, 15)},
                                         {"wider", inputs_of({1, 6}, 134, 17), {}, false},
                                         {"extreme", inputs_of({2, 7}, 3, 19, 1e30), {}, false}};
          },
      .errors =
          [] {
            const auto replaced = [](std::size_t input, Tensor tensor) {
              std::vector<Tensor> inputs = inputs_of({2, 3}, 3, 1);
              inputs[input] = std::move(tensor);
              return inputs;
            };
            std::vector<Tensor> spoiled = inputs_of({2, 3}, 3, 1);
            spoiled[0].mutable_data<double>()[7] = std::nan("");
            return std::vector<OpError>{
                {"packed", replaced(0, sample_normal({2, 9}, 1)), {}, "got packed [2, 9] and q [5, 3]"},
                {"documents", replaced(0, sample_normal({3, 6}, 1)), {}, "with N = 2"},
                {"rank", replaced(1, sample_normal({5}, 1)), {}, "got packed [2, 6] and q [5]"},
                {"no columns", replaced(1, sample_normal({5, 0}, 1)), {}, "with columns"},
                {"types", replaced(1, sample_normal({5, 3}, 1).to(DType::f32)), {}, "packed f64, q f32"},
                {"integers", replaced(0, sample_integers({2, 6}, 1, 3)), {}, "one floating type"},
                {"queries", replaced(2, Tensor::from<std::int64_t>({0, 2, 6}, {3})), {}, "number of rows 5; got 6"},
                {"document", spoiled, {}, "needs finite packed; got one that is not in row 1"}};
          },
      .large =
          [] {
            return OpSample{"large", inputs_of(std::vector<std::int64_t>(64, 26), 128, 1), {}};
          },
      .flops =
          [](const OpSample& sample) {
            const auto width = static_cast<double>(sample.inputs[1].dim(1));
            return 2 * static_cast<double>(sample.inputs[1].dim(0)) * width * width;
          },
  });
}

}  // namespace tally::ops
