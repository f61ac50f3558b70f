// Catalog entries of the ops that move elements (ops/tensor/shape.h).

#include "tally/ops/entries.h"
#include "tally/ops/tensor/shape.h"

namespace tally::ops {
namespace {

using Sizes = std::vector<std::int64_t>;

OpOptions dims(std::int64_t a, std::int64_t b) { return {{"a", a}, {"b", b}}; }
OpOptions range(std::int64_t dim, std::int64_t begin, std::int64_t end) {
  return {{"dim", dim}, {"begin", begin}, {"end", end}};
}

void add_reshape(Catalog& catalog) {
  catalog.add({
      .name = "reshape",
      .summary = "The same elements in another shape.",
      .inputs = {{"x", "[...]"}},
      .options = {{"shape", Sizes{}, "sizes, of which the number of elements stays the same"}},
      .outputs = {{"y", "[...] as the option says"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        const Sizes sizes = options.integers("shape", {});
        return {reshape(in[0], Shape(std::span<const std::int64_t>(sizes)))};
      },
      .samples =
          [] {
            return std::vector<OpSample>{
                {"odd", {sample_normal({3, 4}, 1)}, {{"shape", Sizes{2, 6}}}},
                {"flat", {sample_normal({2, 3, 5}, 2)}, {{"shape", Sizes{30}}}},
                {"to a scalar", {sample_normal({1, 1}, 3)}, {}},
                {"one", {sample_normal({}, 4)}, {{"shape", Sizes{1, 1}}}},
                {"empty", {Tensor({0, 3}, DType::f64)}, {{"shape", Sizes{5, 0}}}},
            };
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"count", {sample_normal({2, 3}, 1)}, {{"shape", Sizes{4, 2}}}, "as many elements as before"},
                {"negative", {sample_normal({2, 3}, 1)}, {{"shape", Sizes{-2, -3}}}, "sizes of at least 0"}};
          },
  });
}

void add_transpose(Catalog& catalog) {
  catalog.add({
      .name = "transpose",
      .summary = "Two dimensions exchanged.",
      .inputs = {{"x", "[...]"}},
      .options = {{"a", std::int64_t{0}, "a dimension"}, {"b", std::int64_t{0}, "the other"}},
      .outputs = {{"y", "[...]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {transpose(in[0], options.dimension("a", 0), options.dimension("b", 0))};
      },
      .samples =
          [] {
            return std::vector<OpSample>{
                {"odd", {sample_normal({3, 5}, 1)}, dims(0, 1)},
                {"outer", {sample_normal({2, 3, 4}, 2)}, dims(0, 2)},
                {"inner", {sample_normal({2, 3, 4}, 3)}, dims(-1, -2)},
                {"same", {sample_normal({2, 3}, 4)}, dims(1, 1)},
                {"outer first", {sample_normal({2, 3}, 6)}, dims(1, 0)},
                {"wide", {sample_normal({3, 67}, 7)}, dims(0, 1)},
                {"one", {sample_normal({1}, 5)}, dims(0, 0)},
                {"empty", {Tensor({0, 3}, DType::f64)}, dims(0, 1)},
            };
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"dimension", {sample_normal({2, 3}, 1)}, dims(0, 2), "needs a dimension in [-2, 2)"}};
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({2048, 256}, 1)}, dims(0, 1)};
          },
  });
}

void add_permute(Catalog& catalog) {
  catalog.add({
      .name = "permute",
      .summary = "Dimensions in another order.",
      .inputs = {{"x", "[...]"}},
      .options = {{"dims", Sizes{}, "for each dimension of the result that of x"}},
      .outputs = {{"y", "[...]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {permute(in[0], options.integers("dims", {}))};
      },
      .samples =
          [] {
            std::vector<OpSample> samples;
            const auto add = [&](std::string name, const Shape& shape, Sizes dims) {
              samples.push_back({std::move(name), {sample_normal(shape, 1)}, {{"dims", std::move(dims)}}});
            };
            add("odd", {3, 5}, {1, 0});
            for (const Sizes& dims : {Sizes{0, 2, 1}, Sizes{1, 0, 2}, Sizes{1, 2, 0}, Sizes{2, 0, 1}, Sizes{2, 1, 0}}) {
              add("three", {2, 3, 4}, dims);
            }
            add("five", {2, 3, 1, 4, 2}, {3, 0, 4, 2, 1});
            add("from the end", {2, 3, 4}, {-1, 0, -2});
            add("wide", {3, 67, 2}, {1, 2, 0});
            add("one", {1}, {0});
            add("scalar", {}, {});
            add("empty", {0, 3}, {1, 0});
            return samples;
          },
      .errors =
          [] {
            const Tensor x = sample_normal({2, 3}, 1);
            return std::vector<OpError>{{"twice", {x}, {{"dims", Sizes{1, -1}}}, "needs each dimension once"},
                                        {"missing", {x}, {{"dims", Sizes{1}}}, "needs each of the 2 dimensions"},
                                        {"dimension", {x}, {{"dims", Sizes{0, 2}}}, "needs a dimension in [-2, 2)"}};
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({128, 64, 32}, 1)}, {{"dims", Sizes{2, 0, 1}}}};
          },
  });
}

void add_reverse(Catalog& catalog) {
  catalog.add({
      .name = "reverse",
      .summary = "The order of elements reversed along dimensions.",
      .inputs = {{"x", "[...]"}},
      .options = {{"dims", Sizes{}, "reversed dimensions"}},
      .outputs = {{"y", "[...]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {reverse(in[0], options.integers("dims", {}))};
      },
      .samples =
          [] {
            const auto along = [](Sizes dims) { return OpOptions{{"dims", std::move(dims)}}; };
            return std::vector<OpSample>{{"rows", {sample_normal({5, 3}, 1)}, along({0})},
                                         {"columns", {sample_normal({3, 5}, 2)}, along({-1})},
                                         {"middle", {sample_normal({2, 4, 3}, 3)}, along({1})},
                                         {"all", {sample_normal({2, 3, 4}, 4)}, along({2, 0, 1})},
                                         {"none", {sample_normal({2, 3}, 5)}, {}},
                                         {"wide", {sample_normal({3, 67}, 6)}, along({1})},
                                         {"one", {sample_normal({1}, 7)}, along({0})},
                                         {"empty", {Tensor({0, 3}, DType::f64)}, along({0})}};
          },
      .errors =
          [] {
            const Tensor x = sample_normal({2, 3}, 1);
            return std::vector<OpError>{{"twice", {x}, {{"dims", Sizes{1, -1}}}, "needs each dimension once"},
                                        {"dimension", {x}, {{"dims", Sizes{2}}}, "needs a dimension in [-2, 2)"}};
          },
  });
}

void add_pad(Catalog& catalog) {
  catalog.add({
      .name = "pad",
      .summary = "A border of a constant around x.",
      .inputs = {{"x", "[...]"}},
      .options = {{"before", Sizes{}, "elements before each dimension"},
                  {"after", Sizes{}, "elements after each dimension"},
                  {"value", 0.0, "of the border"}},
      .outputs = {{"y", "[...]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {pad(in[0], {.before = options.integers("before", {}),
                            .after = options.integers("after", {}),
                            .value = options.number("value", 0)})};
      },
      .samples =
          [] {
            std::vector<OpSample> samples;
            for (const double value : {0.0, -1.5}) {
              const auto by = [&](Sizes before, Sizes after) {
                return OpOptions{{"before", std::move(before)}, {"after", std::move(after)}, {"value", value}};
              };
              samples.push_back({"rows", {sample_normal({2, 3}, 1)}, by({1, 0}, {2, 0})});
              samples.push_back({"columns", {sample_normal({2, 3}, 2)}, by({0, 2}, {0, 1})});
              samples.push_back({"all", {sample_normal({2, 1, 3}, 3)}, by({1, 2, 1}, {0, 1, 3})});
              samples.push_back({"one side", {sample_normal({67}, 4)}, by({1}, {0})});
              samples.push_back({"scalar", {sample_normal({}, 5)}, by({}, {})});
              samples.push_back({"empty", {Tensor({0, 3}, DType::f64)}, by({2, 0}, {1, 1})});
            }
            return samples;
          },
      .errors =
          [] {
            const Tensor x = sample_normal({2, 3}, 1);
            return std::vector<OpError>{
                {"none", {x}, {}, "before and after each dimension"},
                {"before", {x}, {{"before", Sizes{1, 1}}}, "before and after each dimension"},
                {"after", {x}, {{"after", Sizes{1, 1}}}, "before and after each dimension"},
                {"negative", {x}, {{"before", Sizes{-1, 0}}, {"after", Sizes{0, 0}}}, "a size of at least 0"}};
          },
      .apart = {{"before set", "after default"}, {"before default", "after set"}},
  });
}

void add_stack(Catalog& catalog) {
  catalog.add({
      .name = "stack",
      .summary = "Inputs of one shape along a new dimension (any number of them from C++).",
      .inputs = {{"a", "[...]"}, {"b", "[...]", InputKind::differentiable, true}},
      .options = {{"dim", std::int64_t{0}, "the new dimension"}},
      .outputs = {{"y", "[..., inputs, ...]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        if (!in[1].defined()) return {stack({in[0]}, options.dimension("dim", 0))};
        return {stack({in[0], in[1]}, options.dimension("dim", 0))};
      },
      .samples =
          [] {
            std::vector<OpSample> samples;
            for (const std::int64_t dim : {0, 1, 2, -1}) {
              samples.push_back({"odd", {sample_normal({3, 5}, 1), sample_normal({3, 5}, 2)}, {{"dim", dim}}});
            }
            samples.push_back({"one input", {sample_normal({3}, 3), {}}, {{"dim", std::int64_t{1}}}});
            samples.push_back({"one input in front", {sample_normal({3}, 3), {}}});
            samples.push_back({"scalars", {sample_normal({}, 4), sample_normal({}, 5)}});
            samples.push_back({"empty", {Tensor({0, 3}, DType::f64), Tensor({0, 3}, DType::f64)}});
            return samples;
          },
      .errors =
          [] {
            const Tensor x = sample_normal({2, 3}, 1);
            return std::vector<OpError>{
                {"shapes", {x, sample_normal({2, 1}, 1)}, {}, "needs inputs of one shape; got [2, 3] and [2, 1]"},
                {"types", {x, sample_integers({2, 3}, 1, 3)}, {}, "needs inputs of one type"},
                {"dimension", {x, x}, {{"dim", std::int64_t{3}}}, "needs a dimension in [-3, 3)"}};
          },
  });
}

void add_split(Catalog& catalog) {
  catalog.add({
      .name = "split",
      .summary = "Three pieces, one after the other along a dimension (any number of them from C++).",
      .inputs = {{"x", "[...]"}},
      .options = {{"sizes", Sizes{}, "of the three pieces"}, {"dim", std::int64_t{0}, "dimension"}},
      .outputs = {{"a", "[...]"}, {"b", "[...]"}, {"c", "[...]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        const Sizes sizes = options.integers("sizes", {});
        check<ShapeError>(sizes.size() == 3, "split", "needs three sizes here; got ", sizes.size());
        return split(in[0], sizes, options.dimension("dim", 0));
      },
      .samples =
          [] {
            const auto into = [](Sizes sizes, std::int64_t dim) {
              return OpOptions{{"sizes", std::move(sizes)}, {"dim", dim}};
            };
            return std::vector<OpSample>{{"rows", {sample_normal({6, 3}, 1)}, into({1, 3, 2}, 0)},
                                         {"columns", {sample_normal({3, 67}, 2)}, into({2, 1, 64}, -1)},
                                         {"middle", {sample_normal({2, 5, 3}, 3)}, into({2, 2, 1}, 1)},
                                         {"empty pieces", {sample_normal({2, 3}, 4)}, into({0, 3, 0}, 1)},
                                         {"empty", {Tensor({0}, DType::f64)}, into({0, 0, 0}, 0)}};
          },
      .errors =
          [] {
            const Tensor x = sample_normal({4, 3}, 1);
            return std::vector<OpError>{{"too few", {x}, {{"sizes", Sizes{1, 1, 1}}}, "add up to 4"},
                                        {"too many", {x}, {{"sizes", Sizes{1, 4, 1}}}, "got 4 from 1 on"},
                                        {"negative", {x}, {{"sizes", Sizes{5, -1, 0}}}, "sizes of at least 0"},
                                        {"none", {x}, {}, "three sizes"},
                                        {"none of columns", {x}, {{"dim", std::int64_t{1}}}, "three sizes"}};
          },
      .apart = {{"sizes default", "dim set"}, {"sizes default", "dim default"}},
  });
}

void add_slice(Catalog& catalog) {
  catalog.add({
      .name = "slice",
      .summary = "A range along a dimension.",
      .inputs = {{"x", "[...]"}},
      .options = {{"dim", std::int64_t{0}, "dimension"},
                  {"begin", std::int64_t{0}, "first index"},
                  {"end", std::int64_t{0}, "one past the last"}},
      .outputs = {{"y", "[...]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {slice(in[0], options.dimension("dim", 0), options.integer("begin", 0), options.integer("end", 0))};
      },
      .samples =
          [] {
            return std::vector<OpSample>{
                {"rows", {sample_normal({5, 3}, 1)}, range(0, 1, 4)},
                {"columns", {sample_normal({3, 5}, 2)}, range(-1, 2, 5)},
                {"middle", {sample_normal({2, 4, 3}, 3)}, range(1, 1, 2)},
                {"all", {sample_normal({4}, 4)}, range(0, 0, 4)},
                {"one", {sample_normal({1}, 5)}, range(0, 0, 1)},
                {"nothing", {sample_normal({2, 3}, 6)}, range(1, 2, 2)},
                {"nothing at the start", {sample_normal({2, 3}, 7)}, range(0, 0, 0)},
                {"no column", {sample_normal({2, 3}, 8)}, range(1, 0, 0)},
                {"first columns", {sample_normal({2, 67}, 9)}, range(1, 0, 66)},
                {"empty", {Tensor({0, 3}, DType::f64)}, range(1, 0, 2)},
            };
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"dimension", {sample_normal({2, 3}, 1)}, range(2, 0, 1), "needs a dimension in [-2, 2)"},
                {"range", {sample_normal({2, 3}, 1)}, range(1, 2, 4), "got [2, 4)"},
                {"order", {sample_normal({2, 3}, 1)}, range(1, 2, 1), "got [2, 1)"},
                {"no end", {sample_normal({2, 3}, 1)}, {{"begin", std::int64_t{1}}}, "got [1, 0)"}};
          },
      .apart = {{"begin set", "end default"}},
  });
}

void add_concat(Catalog& catalog) {
  catalog.add({
      .name = "concat",
      .summary = "Inputs one after the other along a dimension (any number of them from C++).",
      .inputs = {{"a", "[...]"},
                 {"b", "[...]", InputKind::differentiable, true},
                 {"c", "[...]", InputKind::differentiable, true}},
      .options = {{"dim", std::int64_t{0}, "dimension"}},
      .outputs = {{"y", "[...]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        std::vector<Var> given;
        for (const Var& input : in) {
          if (input.defined()) given.push_back(input);
        }
        return {concat(given, options.dimension("dim", 0))};
      },
      .samples =
          [] {
            const auto along = [](std::int64_t dim) { return OpOptions{{"dim", dim}}; };
            return std::vector<OpSample>{
                {"rows", {sample_normal({3, 2}, 1), sample_normal({1, 2}, 2), sample_normal({4, 2}, 3)}, along(0)},
                {"columns", {sample_normal({3, 2}, 4), sample_normal({3, 5}, 5), {}}, along(-1)},
                {"middle",
                 {sample_normal({2, 1, 3}, 6), sample_normal({2, 2, 3}, 7), sample_normal({2, 3, 3}, 8)},
                 along(1)},
                {"one", {sample_normal({1}, 9), {}, {}}, along(0)},
                {"columns of one", {sample_normal({2, 3}, 9), {}, {}}, along(1)},
                {"first and third", {sample_normal({2, 3}, 9), {}, sample_normal({2, 67}, 10)}, along(1)},
                {"an empty one",
                 {sample_normal({2, 3}, 1), Tensor({0, 3}, DType::f64), sample_normal({1, 3}, 2)},
                 along(0)},
                {"empty", {Tensor({0, 3}, DType::f64), Tensor({0, 2}, DType::f64), {}}, along(1)},
            };
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"sizes", {sample_normal({2, 3}, 1), sample_normal({2, 4}, 1), {}}, {}, "got [2, 3] and [2, 4]"},
                {"types", {sample_normal({2}, 1), sample_integers({2}, 1, 3), {}}, {}, "needs inputs of one type"},
                {"dimension",
                 {sample_normal({2}, 1), sample_normal({2}, 1), {}},
                 {{"dim", std::int64_t{1}}},
                 "needs a dimension"}};
          },
      .large =
          [] {
            return OpSample{
                "large", {sample_normal({2048, 64}, 1), sample_normal({2048, 64}, 2), {}}, {{"dim", std::int64_t{1}}}};
          },
  });
}

void add_expand(Catalog& catalog) {
  catalog.add({
      .name = "expand",
      .summary = "Sizes of 1 and missing leading dimensions repeated.",
      .inputs = {{"x", "[...]"}},
      .options = {{"shape", Sizes{}, "shape of the result"}},
      .outputs = {{"y", "[...] as the option says"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        const Sizes sizes = options.integers("shape", {});
        return {expand(in[0], Shape(std::span<const std::int64_t>(sizes)))};
      },
      .samples =
          [] {
            const auto to = [](Sizes sizes) { return OpOptions{{"shape", std::move(sizes)}}; };
            return std::vector<OpSample>{
                {"row", {sample_normal({5}, 1)}, to({3, 5})},
                {"column", {sample_normal({3, 1}, 2)}, to({3, 4})},
                {"both", {sample_normal({2, 1, 3, 1}, 3)}, to({2, 2, 3, 2})},
                {"scalar", {sample_normal({}, 4)}, to({2, 3})},
                {"to a scalar", {sample_normal({}, 5)}, {}},
                {"one", {sample_normal({1}, 5)}, to({1})},
                {"empty", {sample_normal({1, 3}, 6)}, to({0, 3})},
            };
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"sizes", {sample_normal({2, 3}, 1)}, {{"shape", Sizes{4, 3}}}, "got [2, 3] to [4, 3]"},
                {"rank", {sample_normal({2, 3}, 1)}, {{"shape", Sizes{3}}}, "at least 2 dimensions"}};
          },
  });
}

void add_gather(Catalog& catalog) {
  catalog.add({
      .name = "gather",
      .summary = "Rows by index: y[i] = x[indices[i]].",
      .inputs = {{"x", "[N, ...]"}, {"indices", "[...] in [0, N)", InputKind::integer}},
      .outputs = {{"y", "[indices..., ...]"}},
      .call = [](std::span<const Var> in, const OpOptions&) -> std::vector<Var> {
        return {gather(in[0], in[1].value())};
      },
      .samples =
          [] {
            return std::vector<OpSample>{
                {"odd", {sample_normal({5, 3}, 1), sample_integers({7}, 2, 5)}},
                {"i32", {sample_normal({5, 3}, 3), sample_integers({4}, 4, 5).to(DType::i32)}},
                {"matrix of indices", {sample_normal({4, 2, 3}, 5), sample_integers({2, 3}, 6, 4)}},
                {"elements", {sample_normal({6}, 7), sample_integers({4}, 8, 6)}},
                {"ties", {sample_normal({3, 2}, 9), Tensor::full({5}, 1, DType::i64)}},
                {"one", {sample_normal({1, 1}, 1), Tensor::zeros({1}, DType::i64)}},
                {"a single index", {sample_normal({3, 2}, 2), Tensor::full({}, 2, DType::i64)}},
                {"empty", {sample_normal({3, 2}, 3), Tensor({0}, DType::i64)}},
                {"empty rows", {Tensor({3, 0}, DType::f64), sample_integers({4}, 4, 3)}},
            };
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"index",
                 {sample_normal({3, 2}, 1), Tensor::from({std::int64_t{0}, std::int64_t{3}}, {2})},
                 {},
                 "got 3 at position 1"},
                {"negative",
                 {sample_normal({3, 2}, 1), Tensor::full({1}, -1, DType::i64)},
                 {},
                 "needs indices in [0, 3)"},
                {"type", {sample_normal({3, 2}, 1), sample_normal({2}, 1)}, {}, "needs i32 or i64 indices"},
                {"scalar", {sample_normal({}, 1), Tensor::zeros({1}, DType::i64)}, {}, "needs rows"}};
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({4096, 64}, 1), sample_integers({8192}, 2, 4096)}};
          },
  });
}

void add_index_add(Catalog& catalog) {
  catalog.add({
      .name = "index_add",
      .summary = "y = x, then y[indices[i]] += values[i] in order.",
      .inputs = {{"x", "[N, ...]"},
                 {"indices", "[...] in [0, N)", InputKind::integer},
                 {"values", "[indices..., ...]"}},
      .outputs = {{"y", "[N, ...]"}},
      .call = [](std::span<const Var> in, const OpOptions&) -> std::vector<Var> {
        return {index_add(in[0], in[1].value(), in[2])};
      },
      .samples =
          [] {
            return std::vector<OpSample>{
                {"odd", {sample_normal({5, 3}, 1), sample_integers({7}, 2, 5), sample_normal({7, 3}, 3)}},
                {"i32", {sample_normal({5}, 4), sample_integers({4}, 5, 5).to(DType::i32), sample_normal({4}, 6)}},
                {"matrix of indices",
                 {sample_normal({4, 3}, 7), sample_integers({2, 3}, 8, 4), sample_normal({2, 3, 3}, 9)}},
                {"ties", {sample_normal({3, 2}, 1), Tensor::full({5}, 1, DType::i64), sample_normal({5, 2}, 2)}},
                {"one", {sample_normal({1}, 3), Tensor::zeros({1}, DType::i64), sample_normal({1}, 4)}},
                {"empty", {sample_normal({3, 2}, 5), Tensor({0}, DType::i64), Tensor({0, 2}, DType::f64)}},
                {"empty rows", {Tensor({3, 0}, DType::f64), sample_integers({2}, 6, 3), Tensor({2, 0}, DType::f64)}},
            };
          },
      .errors =
          [] {
            const Tensor x = sample_normal({3, 2}, 1), indices = sample_integers({2}, 1, 3);
            return std::vector<OpError>{
                {"index", {x, Tensor::full({2}, 3, DType::i64), sample_normal({2, 2}, 2)}, {}, "got 3 at position 0"},
                {"values", {x, indices, sample_normal({2, 3}, 2)}, {}, "needs values [2, 2]"},
                {"types", {x, indices, sample_normal({2, 2}, 2).to(DType::f32)}, {}, "needs equal floating types"}};
          },
      .large =
          [] {
            return OpSample{
                "large",
                {sample_normal({4096, 64}, 1), sample_integers({8192}, 2, 4096), sample_normal({8192, 64}, 3)}};
          },
  });
}

}  // namespace

void entries::add_shape(Catalog& catalog) {
  add_reshape(catalog);
  add_transpose(catalog);
  add_permute(catalog);
  add_reverse(catalog);
  add_pad(catalog);
  add_slice(catalog);
  add_concat(catalog);
  add_stack(catalog);
  add_split(catalog);
  add_expand(catalog);
  add_gather(catalog);
  add_index_add(catalog);
}

}  // namespace tally::ops
