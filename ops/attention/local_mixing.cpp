#include "tally/ops/attention/local_mixing.h"

#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/local_mixing.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "local_mixing";

struct LocalMixingRule {
  static constexpr std::string_view name = kName;
  kernels::LocalMixingPlan plan;  // its bounds point into offsets
  Offsets offsets;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  Saved weights, values;

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      if (g.needs(0)) {
        Tensor gradient({gy.dim(0), plan.heads * plan.taps}, gy.dtype());
        kernels::local_mixing_weights_gradient(plan, values.get().data<T>(), gy.data<T>(), gradient.mutable_data<T>());
        g.give(0, std::move(gradient));
      }
      if (g.needs(1)) {
        Tensor gradient({gy.dim(0), plan.width}, gy.dtype());
        kernels::local_mixing_values_gradient(plan, weights.get().data<T>(), gy.data<T>(), gradient.mutable_data<T>());
        g.give(1, std::move(gradient));
      }
    });
  }
};

}  // namespace

Var local_mixing(const Var& weights, const Var& values, const Offsets& offsets, const LocalMixingOptions& options) {
  check<DTypeError>(is_floating(weights.dtype()) && values.dtype() == weights.dtype(), kName,
                    "needs weights and values of one floating type; got ", weights.dtype(), " and ", values.dtype());
  check<ValueError>(options.heads >= 1, kName, "needs at least one head; got ", options.heads);
  const Shape &sw = weights.shape(), &sv = values.shape();
  check<ShapeError>(sw.rank() == 2 && sv.rank() == 2 && sv[0] == sw[0] && sw[1] > 0 && sw[1] % options.heads == 0,
                    kName, "needs weights [T, ", options.heads, " * taps] and values [T, e]; got weights ", sw,
                    " and values ", sv);
  offsets.check_rows(sw[0], kName);
  const kernels::LocalMixingPlan plan{offsets.bounds(), options.heads, sw[1] / options.heads, sv[1], options.ahead};
  check<ValueError>(options.ahead >= 0 && options.ahead < plan.taps, kName, "needs ahead in [0, ", plan.taps,
                    "), the number of taps; got ", options.ahead);
  const Tensor w = weights.value().contiguous(), v = values.value().contiguous();
  Tensor output({sw[0], options.heads * sv[1]}, w.dtype());
  dispatch_floating(w.dtype(), kName, [&]<class T>(T) {
    kernels::local_mixing(plan, w.data<T>(), v.data<T>(), output.mutable_data<T>());
  });
  LocalMixingRule rule{plan, offsets, Saved(offsets.tensor()), Saved(w, values.tracked()), Saved(v, weights.tracked())};
  return record(std::move(rule), {&weights, &values}, std::move(output));
}

void entries::add_local_mixing(Catalog& catalog) {
  const auto inputs = [](const std::vector<std::int64_t>& lengths, std::int64_t columns, std::int64_t width,
                         std::uint64_t stream, double deviation = 1) -> std::vector<Tensor> {
    const std::int64_t rows = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
    return {sample_normal({rows, columns}, stream), sample_normal({rows, width}, stream + 1, deviation),
            Offsets::from_lengths(lengths).tensor()};
  };
  const auto sample = [=](std::string name, std::vector<Tensor> tensors, std::int64_t heads, std::int64_t ahead,
                          bool gradient = true) {
    return OpSample{std::move(name), std::move(tensors), {{"heads", heads}, {"ahead", ahead}}, gradient};
  };
  catalog.add({
      .name = std::string(kName),
      .summary = "Sums of nearby values with weights of each row's own, over packed sequences: sum_i w_ti v_(t - i).",
      .inputs = {{"weights", "[T, heads * taps]"},
                 {"values", "[T, e]"},
                 {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each sequence begins, and T"}},
      .options = {{"heads", std::int64_t{1}, "number of heads, side by side in the columns of the weights"},
                  {"ahead", std::int64_t{0}, "rows after its own that a row sees"}},
      .outputs = {{"output", "[T, heads * e]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {local_mixing(in[0], in[1], Offsets(in[2].value()),
                             {.heads = options.integer("heads", 1), .ahead = options.integer("ahead", 0)})};
      },
      .samples =
          [=] {
            return std::vector<OpSample>{sample("odd", inputs({3, 0, 1, 5}, 6, 3, 1), 2, 0),
                                         sample("both ways", inputs({3, 0, 1, 5}, 6, 3, 3), 2, 1),
                                         sample("ahead alone", inputs({4, 2}, 6, 3, 5), 2, 2),
                                         sample("one head", inputs({6, 2}, 4, 5, 7), 1, 0),
                                         sample("one head, both ways", inputs({6, 2}, 5, 5, 8), 1, 2),
                                         sample("one tap", inputs({4}, 3, 2, 9), 3, 0),
                                         sample("shorter than the window", inputs({2, 1, 3}, 18, 2, 11), 2, 4),
                                         sample("one", inputs({1}, 2, 1, 13), 1, 0),
                                         sample("no sequence", inputs({}, 4, 2, 15), 2, 0),
                                         sample("empty sequences", inputs({0, 0}, 4, 2, 17), 2, 1),
                                         sample("no columns", inputs({3}, 4, 0, 18), 2, 1),
                                         sample("wide", inputs({5, 2}, 6, 67, 19), 2, 0),
                                         sample("several blocks", inputs({63, 1, 70, 0, 2}, 6, 2, 21), 2, 1),
                                         sample("extreme", inputs({6, 2}, 6, 3, 23, 1e6), 2, 1, false)};
          },
      .errors =
          [=] {
            const std::vector<Tensor> good = inputs({2, 3}, 6, 2, 1);
            const auto replaced = [&](std::size_t input, Tensor tensor) {
              std::vector<Tensor> all = good;
              all[input] = std::move(tensor);
              return all;
            };
            return std::vector<OpError>{
                {"values", replaced(1, sample_normal({4, 2}, 1)), {}, "needs weights [T, 1 * taps] and values [T, e]"},
                {"heads", good, {{"heads", std::int64_t{4}}}, "needs weights [T, 4 * taps]"},
                {"no head", good, {{"heads", std::int64_t{0}}}, "at least one head"},
                {"ahead", good, {{"heads", std::int64_t{2}}, {"ahead", std::int64_t{3}}}, "ahead in [0, 3)"},
                {"offsets", replaced(2, Offsets::single(6).tensor()), {}, "number of rows 5; got 6"},
                {"types", replaced(1, sample_integers({5, 2}, 1, 3)), {}, "one floating type"},
            };
          },
      .large = [=] { return sample("large", inputs(std::vector<std::int64_t>(64, 200), 64, 16, 1), 4, 0); },
  });
}

}  // namespace tally::ops
