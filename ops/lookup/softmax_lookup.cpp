#include "tally/ops/lookup/softmax_lookup.h"

#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/ops/attention/attention_options.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/softmax_lookup.h"
#include "tally/ops/lookup/lookup_call.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "softmax_lookup";

template <class T>
kernels::MatrixRows<const T> rows_of(const Tensor& x) {
  return {x.strided_data<T>(), x.stride(0)};
}

template <class T>
kernels::SoftmaxLookupPlan<T> plan_of(const detail::SortedLookups& lookups, const Offsets& offsets, double scale,
                                      const Tensor& q, const Tensor& keys, const Tensor& values) {
  return {lookups.over(offsets), q.dim(1), values.dim(1), scale, rows_of<T>(q), rows_of<T>(keys), rows_of<T>(values)};
}

struct SoftmaxLookupRule {
  static constexpr std::string_view name = kName;
  detail::SortedLookups lookups;
  double scale;
  Offsets offsets;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  Saved q, keys, values, output, log_sum_exp;

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    const Saved* inputs[] = {&q, &keys, &values};
    Tensor gradients[3];
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      T* to[3] = {};
      for (int i = 0; i < 3; ++i) {
        if (!g.needs(i)) continue;
        gradients[i] = Tensor::zeros(inputs[i]->get().shape(), gy.dtype());
        to[i] = gradients[i].mutable_data<T>();
      }
      const bool scores = g.needs(0) || g.needs(1);
      kernels::softmax_lookup_backward(
          plan_of<T>(lookups, offsets, scale, q.get(), keys.get(), values.get()),
          kernels::SoftmaxLookupBackward<T>{scores ? output.get().data<T>() : nullptr, log_sum_exp.get().data<double>(),
                                            gy.data<T>(), to[0], to[1], to[2]});
    });
    for (int i = 0; i < 3; ++i) {
      if (g.needs(i)) g.give(i, std::move(gradients[i]));
    }
  }
};

}  // namespace

Var softmax_lookup(const Var& q, const Var& keys, const Var& values, const Tensor& places, const Offsets& offsets,
                   const SoftmaxLookupOptions& options) {
  detail::check_one_type(kName, {{"q", &q}, {"keys", &keys}, {"values", &values}});
  const Shape &sq = q.shape(), &sk = keys.shape(), &sv = values.shape();
  check<ShapeError>(
      sq.rank() == 2 && sk.rank() == 2 && sv.rank() == 2 && sk[1] == sq[1] && sv[0] == sk[0] && sq[1] > 0 && sv[1] > 0,
      kName, "needs q [M, K], keys [T, K] and values [T, V] with columns; got q ", sq, ", keys ", sk, " and values ",
      sv);
  offsets.check_rows(sk[0], kName);
  check<ValueError>(std::isfinite(options.scale), kName, "needs a finite scale; got ", options.scale);
  const detail::SortedLookups lookups(kName, places, sq[0], sk[0]);
  const Tensor qt = detail::with_dense_rows(q.value()), kt = detail::with_dense_rows(keys.value()),
               vt = detail::with_dense_rows(values.value());
  detail::check_finite_rows(kName, "keys", kt);
  detail::check_finite_rows(kName, "values", vt);
  Tensor output({sq[0], sv[1]}, q.dtype()), log_sum_exp({sq[0]}, DType::f64);
  dispatch_floating(q.dtype(), kName, [&]<class T>(T) {
    kernels::softmax_lookup_forward(plan_of<T>(lookups, offsets, options.scale, qt, kt, vt), output.mutable_data<T>(),
                                    log_sum_exp.mutable_data<double>());
  });
  const bool scores = q.tracked() || keys.tracked();
  SoftmaxLookupRule rule{lookups,           options.scale, offsets,   Saved(offsets.tensor()),
                         Saved(qt),         Saved(kt),     Saved(vt), Saved(output, scores),
                         Saved(log_sum_exp)};
  return record(std::move(rule), {&q, &keys, &values}, std::move(output));
}

namespace {

std::vector<Tensor> inputs_of(const std::vector<std::int64_t>& lengths, const std::vector<std::int64_t>& places,
                              std::int64_t width, std::int64_t value_width, std::uint64_t stream,
                              double deviation = 1) {
  const Offsets offsets = Offsets::from_lengths(lengths);
  const auto lookups = static_cast<std::int64_t>(places.size());
  return {sample_normal({lookups, width}, stream, deviation), sample_normal({offsets.total(), width}, stream + 1),
          sample_normal({offsets.total(), value_width}, stream + 2), Tensor::from(places, {lookups}), offsets.tensor()};
}

std::vector<OpSample> samples() {
  const auto drawn = [](std::int64_t count, std::int64_t rows) { return detail::sample_places(count, rows, 77); };
  std::vector<OpSample> all;
  // Documents that are empty, of one row, and never looked up; places in any order, and one twice.
  all.push_back({"odd", inputs_of({3, 0, 1, 5, 2}, {8, 0, 3, 8, 2, 5}, 3, 5, 1), {{"scale", 0.7}}});
  all.push_back({"one", inputs_of({1}, {0}, 1, 1, 4)});
  all.push_back({"one row", inputs_of({1}, {0}, 3, 5, 301)});
  all.push_back({"empty", inputs_of({}, {}, 4, 2, 7)});
  all.push_back({"empty documents", inputs_of({0, 0}, {}, 4, 2, 10)});
  all.push_back({"no lookups", inputs_of({4, 2}, {}, 3, 2, 13)});
  all.push_back({"ends", inputs_of({7, 4}, {6, 6, 6, 10, 10}, 4, 4, 16), {{"scale", -0.3}}});
  all.push_back({"many at a row", inputs_of({5}, std::vector<std::int64_t>(70, 3), 2, 3, 19)});
  all.push_back({"long", inputs_of({150, 1, 600}, drawn(9, 751), 2, 3, 22)});
  // Blocks of queries and tiles of keys, several of each.
  all.push_back({"many", inputs_of({530, 20}, drawn(150, 550), 2, 1, 25)});
  all.push_back({"wide", inputs_of({6, 0, 3}, {8, 2, 5, 5}, 67, 134, 28), {{"scale", 0.1}}});
  std::vector<Tensor> ties = inputs_of({4, 3}, {3, 6, 1}, 4, 2, 31);
  ties[1].fill(0.5);
  all.push_back({"ties", ties});
  // Scores of about +-10^4: probabilities are 0 or 1, and finite.
  all.push_back({"extreme", inputs_of({6, 300}, {305, 2, 100}, 8, 2, 34, 3e3), {}, false});
  return all;
}

}  // namespace

void entries::add_softmax_lookup(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary = "Softmax attention of single queries to the rows of a document up to a place.",
      .inputs = {{"q", "[M, K]"},
                 {"keys", "[T, K]"},
                 {"values", "[T, V]"},
                 {"places", "[M]", InputKind::integer, false, "i64, the last row that a query sees"},
                 {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each document begins, and T"}},
      .options = {{"scale", 1.0, "of the products of a query and a key"}},
      .outputs = {{"output", "[M, V]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {softmax_lookup(in[0], in[1], in[2], in[3].value(), Offsets(in[4].value()),
                               {.scale = options.number("scale", 1)})};
      },
      .samples = samples,
      .errors =
          [] {
            const auto replaced = [](std::size_t input, Tensor tensor) {
              std::vector<Tensor> inputs = inputs_of({2, 3}, {4, 1}, 3, 2, 1);
              inputs[input] = std::move(tensor);
              return inputs;
            };
            const auto spoiled = [&](std::size_t input, std::int64_t element, double value) {
              std::vector<Tensor> inputs = inputs_of({2, 3}, {4, 1}, 3, 2, 1);
              inputs[input].mutable_data<double>()[element] = value;
              return inputs;
            };
            return std::vector<OpError>{
                {"keys", replaced(1, sample_normal({5, 4}, 1)), {}, "got q [2, 3], keys [5, 4] and values [5, 2]"},
                {"values", replaced(2, sample_normal({4, 2}, 1)), {}, "needs q [M, K], keys [T, K] and values [T, V]"},
                {"no columns", replaced(2, sample_normal({5, 0}, 1)), {}, "with columns"},
                {"rank", replaced(0, sample_normal({2}, 1)), {}, "got q [2]"},
                {"types", replaced(0, sample_integers({2, 3}, 1, 3)), {}, "one floating type"},
                {"offsets", replaced(4, Offsets::single(6).tensor()), {}, "number of rows 5; got 6"},
                {"number of places", replaced(3, sample_integers({3}, 1, 5)), {}, "needs places [M] with M = 2"},
                {"type of places", replaced(3, sample_normal({2}, 1)), {}, "places of type i64"},
                {"place", replaced(3, Tensor::from<std::int64_t>({4, 5}, {2})), {}, "in [0, 5); got 5 for query 1"},
                {"place below", replaced(3, Tensor::from<std::int64_t>({-1, 0}, {2})), {}, "got -1 for query 0"},
                {"key", spoiled(1, 7, std::nan("")), {}, "needs finite keys; got one that is not in row 2"},
                {"value", spoiled(2, 8, HUGE_VAL), {}, "needs finite values; got one that is not in row 4"},
                {"scale", replaced(3, Tensor::from<std::int64_t>({4, 1}, {2})), {{"scale", HUGE_VAL}}, "finite scale"}};
          },
      .large =
          [] {
            const std::vector<std::int64_t> lengths(16, 750);
            return OpSample{"large", inputs_of(lengths, detail::sample_places(400, 16 * 750, 77), 64, 64, 1), {}};
          },
  });
}

}  // namespace tally::ops
