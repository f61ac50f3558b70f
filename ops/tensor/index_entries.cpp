// Catalog entries of the ops that read and write by index along a dimension (ops/tensor/shape.h).

#include "tally/ops/entries.h"
#include "tally/ops/tensor/shape.h"

namespace tally::ops {
namespace {

OpOptions along(std::int64_t dim) { return {{"dim", dim}}; }

void add_gather_along(Catalog& catalog) {
  catalog.add({
      .name = "gather_along",
      .summary = "Elements by index along a dimension: y[i, j] = x[indices[i, j], j].",
      .inputs = {{"x", "[...]"}, {"indices", "[...], of the rank of x", InputKind::integer, false, "i32 or i64"}},
      .options = {{"dim", std::int64_t{0}, "dimension"}},
      .outputs = {{"y", "[...] as indices"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {gather_along(in[0], options.dimension("dim", 0), in[1].value())};
      },
      .samples =
          [] {
            return std::vector<OpSample>{
                {"rows", {sample_normal({5, 3}, 1), sample_integers({7, 3}, 2, 5)}},
                {"columns", {sample_normal({4, 6}, 3), sample_integers({4, 2}, 4, 6)}, along(-1)},
                {"middle, i32",
                 {sample_normal({2, 5, 3}, 5), sample_integers({2, 4, 3}, 6, 5).to(DType::i32)},
                 along(1)},
                {"fewer rows and columns", {sample_normal({4, 5, 3}, 7), sample_integers({2, 6, 1}, 8, 5)}, along(1)},
                {"ties", {sample_normal({3, 2}, 9), Tensor::full({5, 2}, 1, DType::i64)}},
                {"wide", {sample_normal({3, 67}, 1), sample_integers({3, 67}, 2, 67)}, along(1)},
                {"one", {sample_normal({1}, 3), Tensor::zeros({1}, DType::i64)}},
                {"no indices", {sample_normal({3, 2}, 4), Tensor({0, 2}, DType::i64)}},
                {"empty", {Tensor({3, 0}, DType::f64), Tensor({2, 0}, DType::i64)}},
            };
          },
      .errors =
          [] {
            const Tensor x = sample_normal({3, 2}, 1);
            return std::vector<OpError>{
                {"index", {x, Tensor::full({1, 2}, 3, DType::i64)}, {}, "needs indices in [0, 3); got 3 at position 0"},
                {"negative", {x, Tensor::full({1, 2}, -1, DType::i64)}, {}, "got -1 at position 0"},
                {"rank", {x, sample_integers({2}, 1, 3)}, {}, "needs indices of the rank of x"},
                {"sizes", {x, sample_integers({2, 3}, 1, 3)}, {}, "no larger outside dimension 0"},
                {"dimension", {x, sample_integers({2, 2}, 1, 2)}, along(2), "needs a dimension in [-2, 2)"},
                {"type", {x, sample_normal({2, 2}, 1)}, {}, "needs i32 or i64 indices"}};
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({2048, 64}, 1), sample_integers({2048, 64}, 2, 64)}, along(1)};
          },
  });
}

void add_scatter_add(Catalog& catalog) {
  catalog.add({
      .name = "scatter_add",
      .summary = "y = x, then y[indices[i, j], j] += values[i, j] along a dimension, in order.",
      .inputs = {{"x", "[...]"},
                 {"indices", "[...], of the rank of x", InputKind::integer, false, "i32 or i64"},
                 {"values", "[...] as indices"}},
      .options = {{"dim", std::int64_t{0}, "dimension"}},
      .outputs = {{"y", "[...] as x"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {scatter_add(in[0], options.dimension("dim", 0), in[1].value(), in[2])};
      },
      .samples =
          [] {
            const auto sample = [](std::string name, const Shape& x, const Shape& indices, std::int64_t dim) {
              return OpSample{std::move(name),
                              {sample_normal(x, 1), sample_integers(indices, 2, x[static_cast<int>(dim)]),
                               sample_normal(indices, 3)},
                              along(dim)};
            };
            OpSample narrow = sample("i32", {4, 3}, {5, 3}, 0);
            narrow.inputs[1] = narrow.inputs[1].to(DType::i32);
            return std::vector<OpSample>{sample("rows", {5, 3}, {7, 3}, 0),
                                         sample("columns", {4, 6}, {4, 9}, -1),
                                         sample("fewer rows and columns", {4, 5, 3}, {2, 6, 1}, 1),
                                         sample("all to one", {1, 2}, {6, 2}, 0),
                                         sample("wide", {3, 67}, {3, 70}, 1),
                                         sample("one", {1}, {1}, 0),
                                         sample("no indices", {3, 2}, {0, 2}, 0),
                                         std::move(narrow)};
          },
      .errors =
          [] {
            const Tensor x = sample_normal({3, 2}, 1), indices = sample_integers({2, 2}, 1, 3);
            return std::vector<OpError>{
                {"index",
                 {x, Tensor::full({1, 2}, 3, DType::i64), sample_normal({1, 2}, 2)},
                 {},
                 "got 3 at position 0"},
                {"values", {x, indices, sample_normal({2, 1}, 2)}, {}, "needs values of the shape of indices [2, 2]"},
                {"dimension", {x, indices, sample_normal({2, 2}, 2)}, along(-3), "needs a dimension in [-2, 2)"},
                {"types", {x, indices, sample_normal({2, 2}, 2).to(DType::f32)}, {}, "needs equal floating types"}};
          },
      .large =
          [] {
            return OpSample{
                "large",
                {sample_normal({2048, 64}, 1), sample_integers({2048, 64}, 2, 64), sample_normal({2048, 64}, 3)},
                along(1)};
          },
  });
}

void add_one_hot(Catalog& catalog) {
  catalog.add({
      .name = "one_hot",
      .summary = "1 where the last dimension's place is the index, else 0; i64 (any type from C++).",
      .inputs = {{"indices", "[...] in [0, classes)", InputKind::integer, false, "i32 or i64"}},
      .options = {{"classes", std::int64_t{0}, "size of the last dimension"}},
      .outputs = {{"y", "[..., classes]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {one_hot(in[0].value(), options.integer("classes", 0), DType::i64)};
      },
      .samples =
          [] {
            const auto of = [](std::int64_t classes) { return OpOptions{{"classes", classes}}; };
            return std::vector<OpSample>{{"odd", {sample_integers({5}, 1, 3)}, of(3)},
                                         {"matrix, i32", {sample_integers({2, 3}, 2, 7).to(DType::i32)}, of(7)},
                                         {"wide", {sample_integers({4}, 3, 67)}, of(67)},
                                         {"scalar", {sample_integers({}, 4, 5)}, of(5)},
                                         {"one", {Tensor::zeros({1}, DType::i64)}, of(1)},
                                         {"empty", {Tensor({0, 2}, DType::i64)}, {}}};
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"index", {Tensor::full({2}, 3, DType::i64)}, {{"classes", std::int64_t{3}}}, "got 3 at position 0"},
                {"classes",
                 {sample_integers({2}, 1, 3)},
                 {{"classes", std::int64_t{-1}}},
                 "a number of classes; got -1"},
                {"no classes", {sample_integers({2}, 1, 3)}, {}, "needs indices in [0, 0)"},
                {"type", {sample_normal({2}, 1)}, {}, "needs i32 or i64 indices"}};
          },
  });
}

}  // namespace

void entries::add_index(Catalog& catalog) {
  add_gather_along(catalog);
  add_scatter_add(catalog);
  add_one_hot(catalog);
}

}  // namespace tally::ops
