#include "tally/ops/memory/product_keys.h"

#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/product_keys.h"
#include "tally/ops/memory/memory_gradients.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "product_keys";

struct ProductKeysRule {
  static constexpr std::string_view name = kName;
  kernels::ProductKeyPlan plan;
  Saved queries, keys, slots;

  void backward(BackwardContext& g) const {
    detail::give_product_keys(g, plan, queries.get(), keys.get(), slots.get(), g.cotangent());
  }
};

void check_call(const Var& queries, const Var& keys, const ProductKeyOptions& options) {
  check<DTypeError>(is_floating(queries.dtype()) && keys.dtype() == queries.dtype(), kName,
                    "needs queries and keys of one floating type; got ", queries.dtype(), " and ", keys.dtype());
  check<ValueError>(options.heads >= 1, kName, "needs at least one head; got ", options.heads);
  const Shape &of_queries = queries.shape(), &of_keys = keys.shape();
  check<ShapeError>(
      of_keys.rank() == 4 && of_keys[0] == options.heads && of_keys[1] == 2 && of_keys[2] > 0 && of_keys[3] > 0, kName,
      "needs keys [", options.heads, ", 2, n, w]; got ", of_keys);
  check<ShapeError>(of_queries.rank() == 2 && of_queries[1] == options.heads * 2 * of_keys[3], kName,
                    "needs queries [T, heads * 2 w] = [T, ", options.heads * 2 * of_keys[3], "]; got ", of_queries);
  constexpr std::int64_t kMostKeys = std::int64_t{1} << 31;  // whose square is an index
  const std::int64_t n = of_keys[2];
  check<ValueError>(n < kMostKeys && options.slots >= 1 && options.slots <= n * n, kName, "needs 1 <= slots <= ", n,
                    "^2; got ", options.slots);
  check<ValueError>(all_finite(queries.value()), kName, "needs finite queries; got one that is not");
  check<ValueError>(all_finite(keys.value()), kName, "needs finite keys; got one that is not");
}

/// Queries and keys of a sample: whole numbers, which tie, where `whole`.
std::vector<Tensor> inputs_of(std::int64_t rows, std::int64_t heads, std::int64_t n, std::int64_t width,
                              std::uint64_t stream, bool whole = false) {
  std::vector<Tensor> inputs{sample_normal({rows, heads * 2 * width}, stream),
                             sample_normal({heads, 2, n, width}, stream + 1)};
  for (std::size_t i = 0; whole && i < inputs.size(); ++i)
    inputs[i] = sample_integers(inputs[i].shape(), stream + i, 3).to(DType::f64);
  return inputs;
}

}  // namespace

void detail::give_product_keys(BackwardContext& g, const kernels::ProductKeyPlan& plan, const Tensor& queries,
                               const Tensor& keys, const Tensor& slots, const Tensor& gradient) {
  Tensor to_queries, to_keys;
  dispatch_floating(gradient.dtype(), kName, [&]<class T>(T) {
    const auto wanted = [&](int i, const Tensor& input, Tensor& to) -> T* {
      if (!g.needs(i)) return nullptr;
      to = Tensor(input.shape(), gradient.dtype());
      return to.mutable_data<T>();
    };
    T* queries_to = wanted(0, queries, to_queries);
    kernels::product_keys_backward(plan, queries.data<T>(), keys.data<T>(), slots.data<std::int64_t>(),
                                   gradient.data<T>(), queries_to, wanted(1, keys, to_keys));
  });
  if (g.needs(0)) g.give(0, std::move(to_queries));
  if (g.needs(1)) g.give(1, std::move(to_keys));
}

ProductKeyChoice product_keys(const Var& queries, const Var& keys, const ProductKeyOptions& options) {
  check_call(queries, keys, options);
  const Tensor q = queries.value().contiguous(), c = keys.value().contiguous();
  const kernels::ProductKeyPlan plan{q.dim(0), options.heads, c.dim(2), c.dim(3), options.slots};
  Tensor scores({plan.rows, plan.heads, plan.chosen}, q.dtype()), slots(scores.shape(), DType::i64);
  dispatch_floating(q.dtype(), kName, [&]<class T>(T) {
    kernels::choose_product_keys(plan, q.data<T>(), c.data<T>(), scores.mutable_data<T>(),
                                 slots.mutable_data<std::int64_t>());
  });
  ProductKeysRule rule{plan, Saved(q), Saved(c), Saved(slots)};
  return {record(std::move(rule), {&queries, &keys}, std::move(scores)), std::move(slots)};
}

void entries::add_product_keys(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary = "The k best of n^2 slots by the sums of two sub-keys' scores, exactly.",
      .inputs = {{"queries", "[T, heads * 2 w]"}, {"keys", "[heads, 2, n, w]"}},
      .options = {{"heads", std::int64_t{1}, "number of heads, each with keys of its own"},
                  {"slots", std::int64_t{32}, "chosen by each head for each query"}},
      .outputs = {{"scores", "[T, heads, k]"}, {"slots", "[T, heads, k]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        ProductKeyChoice choice =
            product_keys(in[0], in[1], {options.integer("heads", 1), options.integer("slots", 32)});
        return {std::move(choice.scores), std::move(choice.slots)};
      },
      .samples =
          [] {
            const auto of = [](std::int64_t heads, std::int64_t slots) {
              return OpOptions{{"heads", heads}, {"slots", slots}};
            };
            return std::vector<OpSample>{
                {"odd", inputs_of(5, 2, 7, 3, 1), of(2, 5)},
                {"one", inputs_of(1, 1, 1, 1, 3), of(1, 1)},
                {"no rows", inputs_of(0, 2, 3, 2, 5), of(2, 4)},
                {"every slot", inputs_of(3, 1, 4, 2, 7), of(1, 16)},
                {"more than keys", inputs_of(3, 3, 5, 2, 9), of(3, 11)},
                {"best alone", inputs_of(70, 1, 9, 33, 11), of(1, 1)},
                {"many", inputs_of(9, 1, 40, 5, 13)},
                {"many of two heads", inputs_of(3, 2, 6, 3, 19), {{"heads", std::int64_t{2}}}},
                {"ties", inputs_of(20, 2, 12, 2, 15, true), of(2, 9), false},
                {"zeros", {Tensor::zeros({2, 4}, DType::f64), sample_normal({1, 2, 6, 2}, 17)}, of(1, 7), false},
            };
          },
      .errors =
          [] {
            Tensor broken = sample_normal({2, 8}, 1);
            broken.mutable_data<double>()[9] = NAN;
            const Tensor queries = sample_normal({2, 8}, 1), keys = sample_normal({2, 2, 3, 2}, 2);
            const OpOptions good{{"heads", std::int64_t{2}}, {"slots", std::int64_t{4}}};
            const auto with = [&](const char* name, std::int64_t value) {
              OpOptions options = good;
              options.set(name, value);
              return options;
            };
            return std::vector<OpError>{
                {"no slot", {queries, keys}, with("slots", 0), "1 <= slots <= 3^2; got 0"},
                {"above the slots", {queries, keys}, with("slots", 10), "1 <= slots <= 3^2; got 10"},
                {"no head", {queries, keys}, with("heads", 0), "at least one head; got 0"},
                {"heads", {queries, keys}, with("heads", 3), "keys [3, 2, n, w]; got [2, 2, 3, 2]"},
                {"queries", {sample_normal({2, 6}, 1), keys}, good, "[T, 8]; got [2, 6]"},
                {"not finite", {broken, keys}, good, "finite queries"},
                {"types", {queries.to(DType::f32), keys}, good, "one floating type"},
            };
          },
      .large =
          [] {
            return OpSample{
                "large", inputs_of(1024, 4, 256, 64, 1), {{"heads", std::int64_t{4}}, {"slots", std::int64_t{32}}}};
          },
      .flops =
          [](const OpSample& sample) {
            return 2.0 * static_cast<double>(sample.inputs[0].numel()) * static_cast<double>(sample.inputs[1].dim(2));
          },
  });
}

}  // namespace tally::ops
