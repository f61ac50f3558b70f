#include "tally/ops/attention/product_attention.h"

#include "tally/autograd/tape.h"
#include "tally/ops/attention/attention_options.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/product_attention.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "product_attention";

template <class T>
kernels::MatrixRows<const T> rows_of(const Tensor& x) {
  return {x.strided_data<T>(), x.stride(0)};
}

template <class T>
kernels::ProductAttentionPlan<T> plan_of(const detail::AttentionSizes& sizes, bool causal, const Offsets& offsets,
                                         const Tensor& q, const Tensor& k, const Tensor& v) {
  return {offsets.bounds(), sizes.heads,   sizes.width,   sizes.value_width, causal,
          sizes.scale,      rows_of<T>(q), rows_of<T>(k), rows_of<T>(v)};
}

struct ProductAttentionRule {
  static constexpr std::string_view name = kName;
  detail::AttentionSizes sizes;
  bool causal;
  Offsets offsets;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  Saved q, k, v;

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    const Saved* inputs[] = {&q, &k, &v};
    Tensor gradients[3];
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      T* to[3] = {};
      for (int i = 0; i < 3; ++i) {
        if (!g.needs(i)) continue;
        gradients[i] = Tensor(inputs[i]->get().shape(), gy.dtype());
        to[i] = gradients[i].mutable_data<T>();
      }
      kernels::product_attention_backward(plan_of<T>(sizes, causal, offsets, q.get(), k.get(), v.get()), gy.data<T>(),
                                          to[0], to[1], to[2]);
    });
    for (int i = 0; i < 3; ++i) {
      if (g.needs(i)) g.give(i, std::move(gradients[i]));
    }
  }
};

}  // namespace

Var product_attention(const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                      const ProductAttentionOptions& options) {
  const detail::AttentionSizes sizes = detail::check_attention(
      kName, q, k, v, offsets, {.heads = options.heads, .mask = options.mask, .scale = options.scale});
  const bool causal = options.mask == AttentionMask::causal;
  const Tensor qt = detail::with_dense_rows(q.value()), kt = detail::with_dense_rows(k.value()),
               vt = detail::with_dense_rows(v.value());
  Tensor output({q.dim(0), v.dim(1)}, q.dtype());
  dispatch_floating(q.dtype(), kName, [&]<class T>(T) {
    kernels::product_attention_forward(plan_of<T>(sizes, causal, offsets, qt, kt, vt), output.mutable_data<T>());
  });
  ProductAttentionRule rule{sizes, causal, offsets, Saved(offsets.tensor()), Saved(qt), Saved(kt), Saved(vt)};
  return record(std::move(rule), {&q, &k, &v}, std::move(output));
}

namespace {

ProductAttentionOptions options_of(const OpOptions& options) {
  return {.heads = options.integer("heads", 1),
          .mask = detail::attention_mask(options),
          .scale = options.number("scale", 0)};
}

std::vector<OpSample> samples() {
  std::vector<OpSample> all;
  for (const char* mask : {"causal", "bidirectional"}) {
    const OpOptions two{{"heads", std::int64_t{2}}, {"mask", std::string(mask)}}, one{{"mask", std::string(mask)}};
    all.push_back({"odd", detail::attention_inputs({3, 0, 1, 5}, 6, 10, 1), two});
    all.push_back({"one", detail::attention_inputs({1}, 2, 2, 5), two});
    all.push_back({"empty", detail::attention_inputs({}, 4, 2, 9), two});
    all.push_back({"empty sequences", detail::attention_inputs({0, 0}, 4, 2, 13), two});
    all.push_back({"long", detail::attention_inputs({150, 1, 70}, 2, 3, 17), one});
    all.push_back({"wide", detail::attention_inputs({6, 0, 3}, 134, 66, 21), two});
    all.push_back({"extreme", detail::attention_inputs({6, 70}, 8, 2, 25, 1e3), two, false});
  }
  return all;
}

}  // namespace

void entries::add_product_attention(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary = "Attention without a softmax over packed sequences: scale sum <q, k> v per head, in chunks.",
      .inputs = {{"q", "[T, heads * d]"},
                 {"k", "[T, heads * d]"},
                 {"v", "[T, heads * e]"},
                 {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each sequence begins, and T"}},
      .options = {{"heads", std::int64_t{1}, "number of heads, side by side in the columns"},
                  {"mask", std::string("causal"), "'causal' or 'bidirectional'"},
                  {"scale", 0.0, "of the products; 0 for 1 / sqrt(d)"}},
      .outputs = {{"output", "[T, heads * e]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {product_attention(in[0], in[1], in[2], Offsets(in[3].value()), options_of(options))};
      },
      .samples = samples,
      .errors =
          [] {
            const auto replaced = [](std::size_t input, Tensor tensor) {
              std::vector<Tensor> inputs = detail::attention_inputs({2, 3}, 6, 4, 1);
              inputs[input] = std::move(tensor);
              return inputs;
            };
            return std::vector<OpError>{
                {"keys", replaced(1, sample_normal({5, 3}, 1)), {}, "needs q and k [T, heads * d]"},
                {"offsets", replaced(3, Offsets::single(6).tensor()), {}, "number of rows 5; got 6"},
                {"types", replaced(0, sample_integers({5, 6}, 1, 3)), {}, "one floating type"},
                {"heads", detail::attention_inputs({2, 3}, 6, 4, 1), {{"heads", std::int64_t{4}}}, "share evenly"},
                {"mask", detail::attention_inputs({2, 3}, 6, 4, 1), {{"mask", std::string("diagonal")}}, "'causal' or"},
            };
          },
      .large =
          [] {
            return OpSample{"large", detail::attention_inputs(std::vector<std::int64_t>(64, 200), 64, 64, 1), {}};
          },
      .flops =
          [](const OpSample& sample) {
            const auto heads = static_cast<double>(sample.options.integer("heads", 1));
            return 4.0 * static_cast<double>(sample.inputs[2].numel()) * static_cast<double>(sample.inputs[1].dim(1)) /
                   heads;
          },
      .variations =
          [] {
            return std::vector<OpVariations>{{{"heads", detail::attention_inputs({4, 0, 1, 3}, 6, 12, 55)},
                                              {{"heads", {std::int64_t{2}, std::int64_t{3}}},
                                               {"mask", {std::string("bidirectional")}},
                                               {"scale", {0.7, -0.3}}}}};
          },
  });
}

}  // namespace tally::ops
