// Catalog entries of the reductions (ops/tensor/reduce.h).

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "tally/ops/entries.h"
#include "tally/ops/tensor/reduce.h"

namespace tally::ops {
namespace {

using Dims = std::vector<std::int64_t>;

ReduceOptions reduce_options(const OpOptions& options) {
  return {.dims = options.integers("dims", {}), .keepdims = options.flag("keepdims", false)};
}

/// Normal values pushed apart, so that no two are closer than 0.05: which is the largest does not change nearby.
Tensor apart(const Shape& shape, std::uint64_t stream) {
  Tensor tensor = sample_normal(shape, stream);
  const std::span<double> values = tensor.mutable_span<double>();
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  for (std::size_t rank = 0; rank < order.size(); ++rank) values[order[rank]] += 0.05 * static_cast<double>(rank);
  return tensor;
}

void add_reduction(Catalog& catalog, const std::string& name, const std::string& summary,
                   Var (*call)(const Var&, const ReduceOptions&), bool of_nothing, bool kinks) {
  catalog.add({
      .name = name,
      .summary = summary,
      .inputs = {{"x", "[...]"}},
      .options = {{"dims", Dims{}, "reduced dimensions; none means all"}, {"keepdims", false, "keep them with size 1"}},
      .outputs = {{"y", "[...] without the reduced dimensions"}},
      .call = [call](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {call(in[0], reduce_options(options))};
      },
      .samples =
          [of_nothing, kinks] {
            std::vector<OpSample> samples;
            for (const bool keepdims : {false, true}) {
              const auto with = [&](Dims dims) { return OpOptions{{"dims", std::move(dims)}, {"keepdims", keepdims}}; };
              samples.push_back({"all", {apart({3, 5}, 1)}, with({})});
              samples.push_back({"rows", {apart({5, 3}, 2)}, with({0})});
              samples.push_back({"columns", {apart({5, 3}, 3)}, with({-1})});
              samples.push_back({"middle", {apart({2, 3, 4}, 4)}, with({1})});
              samples.push_back({"outer and inner", {apart({2, 3, 4}, 5)}, with({2, 0})});
              samples.push_back({"alternating", {apart({2, 3, 2, 3}, 6)}, with({0, 2})});
              samples.push_back({"sizes of 1", {apart({1, 3, 1, 2}, 7)}, with({0, 1})});
              samples.push_back({"one", {apart({1}, 8)}, with({0})});
              samples.push_back({"scalar", {apart({}, 9)}, with({})});
              samples.push_back({"empty", {Tensor({0, 4}, DType::f64)}, with({1})});
              if (of_nothing) samples.push_back({"of nothing", {Tensor({3, 0}, DType::f64)}, with({1})});
            }
            samples.push_back(
                {"ties", {Tensor::from({1.0, 2.0, 2.0, 1.0, 2.0, 1.0}, {2, 3})}, {{"dims", Dims{1}}}, true, kinks});
            samples.push_back({"all equal", {Tensor::full({2, 9}, -0.5, DType::f64)}, {}, true, kinks});
            samples.push_back({"wide", {apart({3, 67}, 10)}, {{"dims", Dims{1}}}});
            samples.push_back({"wide rows", {apart({5, 70}, 11)}, {{"dims", Dims{0}}}});
            samples.push_back({"extreme", {Tensor::from({1e30, 2e30, 1.0, -1e-30}, {4})}, {}, false});
            return samples;
          },
      .errors =
          [of_nothing] {
            std::vector<OpError> errors{
                {"dimension", {apart({2, 3}, 1)}, {{"dims", Dims{2}}}, "needs dimensions in [-2, 2)"},
                {"twice", {apart({2, 3}, 1)}, {{"dims", Dims{1, -1}}}, "needs each dimension once"},
                {"integers", {sample_integers({3}, 1, 5)}, {}, "needs f32 or f64"}};
            if (!of_nothing) {
              errors.push_back(
                  {"of nothing", {Tensor({3, 0}, DType::f64)}, {{"dims", Dims{1}}}, "at least one element"});
            }
            return errors;
          },
      .large =
          [] {
            return OpSample{"large", {apart({2048, 256}, 1)}, {{"dims", Dims{0}}}};
          },
      .kinks = kinks,
  });
}

void add_place(Catalog& catalog, const std::string& name, const std::string& summary,
               Tensor (*call)(const Var&, const ArgOptions&)) {
  catalog.add({
      .name = name,
      .summary = summary + " element along a dimension stands; the first of equals, the first NaN before every number.",
      .inputs = {{.name = "x",
                  .shape = "[...]",
                  .kind = InputKind::constant,
                  .no_gradient = "an index does not move with it"}},
      .options = {{"dim", std::int64_t{-1}, "dimension; negative ones count from the end"},
                  {"keepdims", false, "keep it with size 1"}},
      .outputs = {{"indices", "[...] without the dimension, i64"}},
      .call = [call](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {call(in[0], {.dim = options.dimension("dim", -1), .keepdims = options.flag("keepdims", false)})};
      },
      .samples =
          [] {
            std::vector<OpSample> samples;
            for (const bool keepdims : {false, true}) {
              for (const std::int64_t dim : {0, 1, -1}) {
                samples.push_back({"odd", {sample_normal({3, 5, 2}, 1)}, {{"dim", dim}, {"keepdims", keepdims}}});
              }
            }
            samples.push_back({"ties", {sample_integers({4, 9}, 2, 3).to(DType::f64)}});
            samples.push_back({"wide", {sample_normal({3, 67}, 3)}});
            samples.push_back({"wide rows", {sample_normal({5, 70}, 4)}, {{"dim", std::int64_t{0}}}});
            samples.push_back({"one", {sample_normal({1}, 5)}});
            samples.push_back({"empty", {Tensor({0, 4}, DType::f64)}});
            const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
            samples.push_back(
                {"extreme", {Tensor::from({1.0, nan, infinity, nan, -infinity, -infinity, 0.0, -0.0}, {2, 4})}});
            return samples;
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"dimension", {sample_normal({2, 3}, 1)}, {{"dim", std::int64_t{2}}}, "needs dimensions in [-2, 2)"},
                {"scalar", {sample_normal({}, 1)}, {}, "needs dimensions in"},
                {"integers", {sample_integers({3}, 1, 5)}, {}, "needs f32 or f64"},
                {"of nothing", {Tensor({3, 0}, DType::f64)}, {}, "at least one element"}};
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({2048, 256}, 1)}};
          },
  });
}

}  // namespace

void entries::add_reduce(Catalog& catalog) {
  add_reduction(catalog, "sum", "Sum over dimensions.", sum, true, false);
  add_reduction(catalog, "mean", "Mean over dimensions.", mean, false, false);
  add_reduction(catalog, "max", "Largest element over dimensions; the first of equals takes the gradient.", max, false,
                true);
  add_reduction(catalog, "min", "Smallest element over dimensions; the first of equals takes the gradient.", min, false,
                true);
  add_place(catalog, "argmax", "Where the largest", argmax);
  add_place(catalog, "argmin", "Where the smallest", argmin);
  catalog.add({
      .name = "cumulative_sum",
      .summary = "Sum of the elements up to each one along a dimension.",
      .inputs = {{"x", "[...]"}},
      .options = {{"dim", std::int64_t{0}, "dimension; negative ones count from the end"}},
      .outputs = {{"y", "[...]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {cumulative_sum(in[0], options.dimension("dim", 0))};
      },
      .samples =
          [] {
            std::vector<OpSample> samples;
            for (const std::int64_t dim : {0, 1, -1}) {
              samples.push_back({"odd", {sample_normal({3, 5, 2}, 1)}, {{"dim", dim}}});
            }
            samples.push_back({"vector", {sample_normal({7}, 2)}});
            samples.push_back({"one", {sample_normal({1}, 3)}});
            samples.push_back({"empty", {Tensor({0, 2}, DType::f64)}});
            samples.push_back({"no columns", {Tensor({3, 0}, DType::f64)}});
            return samples;
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"dimension", {sample_normal({2, 3}, 1)}, {{"dim", std::int64_t{2}}}, "needs a dimension in [-2, 2)"}};
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({512, 1024}, 1)}, {{"dim", std::int64_t{1}}}};
          },
  });
  catalog.add({
      .name = "log_sum_exp",
      .summary = "log(sum(exp(x))) over dimensions.",
      .inputs = {{"x", "[...]"}},
      .options = {{"dims", Dims{-1}, "reduced dimensions; none means all"},
                  {"keepdims", false, "keep them with size 1"}},
      .outputs = {{"y", "[...] without the reduced dimensions"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        const bool keepdims = options.flag("keepdims", false);
        const Dims dims = options.integers("dims", {-1});
        if (dims == Dims{-1} && !keepdims) return {log_sum_exp(in[0])};
        return {log_sum_exp(in[0], {.dims = dims, .keepdims = keepdims})};
      },
      .samples =
          [] {
            return std::vector<OpSample>{
                {"odd", {sample_normal({3, 7}, 1)}},
                {"wide", {sample_normal({2, 37}, 2, 10)}},
                {"vector", {sample_normal({5}, 3)}},
                {"one", {sample_normal({1}, 4)}},
                {"empty", {Tensor({0, 3}, DType::f64)}},
                {"ties", {Tensor::full({2, 3}, 1.5, DType::f64)}},
                {"extreme", {Tensor::from({1e4, 1e4, -1e4, -1e30, 0.0, 1e30}, {2, 3})}, {}, false},
                {"rows", {sample_normal({5, 3}, 5)}, {{"dims", Dims{0}}}},
                {"all", {sample_normal({2, 3, 2}, 6)}, {{"dims", Dims{}}}},
                {"scalar", {sample_normal({}, 7)}, {{"dims", Dims{}}}},
                {"kept", {sample_normal({2, 3, 4}, 8)}, {{"dims", Dims{2, 0}}, {"keepdims", true}}},
                {"last kept", {sample_normal({2, 3}, 9)}, {{"keepdims", true}}},
            };
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"scalar", {sample_normal({}, 1)}, {}, "at least one dimension"},
                {"dims", {sample_normal({2}, 1)}, {{"dims", Dims{1}}}, "needs dimensions in [-1, 1)"}};
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({2048, 256}, 1)}};
          },
  });
  catalog.add({
      .name = "top_k",
      .summary = "The k largest elements along a dimension, largest first, and their indices.",
      .inputs = {{"x", "[..., n]"}},
      .options = {{"k", std::int64_t{1}, "how many"},
                  {"dim", std::int64_t{-1}, "dimension; negative ones count from the end"}},
      .outputs = {{"values", "[..., k]"}, {"indices", "i64 [..., k]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        TopK top = top_k(in[0], options.integer("k", 1), options.dimension("dim", -1));
        return {top.values, Var(top.indices)};
      },
      .samples =
          [] {
            const auto k = [](std::int64_t value) { return OpOptions{{"k", value}}; };
            return std::vector<OpSample>{
                {"odd", {apart({3, 11}, 1)}, k(4)},
                {"largest", {apart({2, 2, 5}, 2)}},
                {"all", {apart({6}, 3)}, k(6)},
                {"none", {sample_normal({2, 3}, 4)}, k(0)},
                {"one", {sample_normal({1}, 5)}, k(1)},
                {"empty", {Tensor({0, 3}, DType::f64)}, k(2)},
                {"ties", {Tensor::from({1.0, 2.0, 1.0, 2.0, 1.0, 0.0}, {6})}, k(4), false},
                {"first dimension", {apart({5, 3}, 6)}, {{"dim", std::int64_t{0}}}},
                {"middle", {apart({2, 5, 3}, 7)}, {{"k", std::int64_t{2}}, {"dim", std::int64_t{-2}}}},
                // Equals on both sides of the border: up the one wins, down the other.
                {"ties at the border", {Tensor::from({2.0, 3.0, 2.0, 0.0}, {4})}, k(2), true, true},
                {"all equal", {Tensor::full({2, 5}, 0.5, DType::f64)}, k(1), true, true},
            };
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"scalar", {sample_normal({}, 1)}, {{"k", std::int64_t{0}}}, "at least one dimension"},
                {"k",
                 {sample_normal({2, 3}, 1)},
                 {{"k", std::int64_t{4}}},
                 "needs 0 <= k <= 3 for shape [2, 3]; got 4"},
                {"negative k", {sample_normal({2, 3}, 1)}, {{"k", std::int64_t{-1}}}, "needs 0 <= k"}};
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({256, 4096}, 1)}, {{"k", std::int64_t{10}}}};
          },
      .kinks = true,
  });
}

}  // namespace tally::ops
