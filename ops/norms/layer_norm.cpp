#include "tally/ops/norms/layer_norm.h"

#include "tally/ops/entries.h"
#include "tally/ops/norms/norm_family.h"

namespace tally::ops {
namespace {

struct LayerNormRule {
  static constexpr std::string_view name = "layer_norm";
  detail::SavedNorm saved;

  void backward(BackwardContext& g) const { saved.backward(g, {.x = 0, .weight = 1, .bias = 2}); }
};

}  // namespace

Var layer_norm(const Var& x, const Var& weight, const Var& bias, const LayerNormOptions& options) {
  detail::NormResult result =
      detail::normalize(LayerNormRule::name, NormKind::layer, {x, Var(), weight, bias}, options.epsilon, {});
  return record(LayerNormRule{std::move(result.saved)}, {&x, &weight, &bias}, std::move(result.normalized));
}

void entries::add_layer_norm(Catalog& catalog) {
  catalog.add({
      .name = "layer_norm",
      .summary = "(x - mean) / sqrt(variance + epsilon) * weight + bias over the last dimension.",
      .inputs = {{"x", "[..., D]"},
                 {.name = "weight", .shape = "[D]", .optional = true},
                 {.name = "bias", .shape = "[D]", .optional = true}},
      .options = {{"epsilon", 1e-5, "added to the variance"}},
      .outputs = {{"y", "[..., D]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {layer_norm(in[0], in[1], in[2], {options.number("epsilon", 1e-5)})};
      },
      .samples =
          [] {
            const auto inputs = [](const Shape& x, double size = 1) -> std::vector<Tensor> {
              return {sample_normal(x, 1, size), sample_normal({x[-1]}, 2), sample_normal({x[-1]}, 3)};
            };
            // Far from zero in steps that f32 holds exactly, so that only the op's own rounding is measured; a
            // numeric derivative would step in proportion to the offset.
            Tensor far = sample_integers({4, 37}, 4, 256).to(DType::f64);
            for (double& value : far.mutable_span<double>()) value = 1e4 + value / 64;
            return std::vector<OpSample>{
                {"odd", inputs({5, 7})},
                {"batch, wide epsilon", inputs({2, 3, 19}), {{"epsilon", 0.5}}},
                {"one", inputs({1, 1})},
                {"vector", inputs({6})},
                {"no weight", {sample_normal({3, 5}, 5), {}, sample_normal({5}, 6)}},
                {"no bias", {sample_normal({3, 5}, 7), sample_normal({5}, 8), {}}},
                {"no rows", inputs({0, 4})},
                {"many rows", inputs({70, 2}), {{"epsilon", 0.1}}},
                {"wide", inputs({2, 1100})},
                {"wider than a block of rows", inputs({2, 4100}), {}, false},
                {"constant rows",
                 {Tensor::full({3, 17}, 1234.5, DType::f64), sample_normal({17}, 9), sample_normal({17}, 10)},
                 {},
                 false},
                {"far from zero", {far, sample_normal({37}, 11), sample_normal({37}, 12)}, {}, false},
                {"large", inputs({4, 9}, 1e15), {}, false},
                {"small", inputs({4, 9}, 1e-15), {}, false},
            };
          },
      .errors =
          [] {
            const auto t = [](const Shape& shape) { return sample_normal(shape, 1); };
            return std::vector<OpError>{
                {"weight", {t({2, 3}), t({4}), {}}, {}, "weight f64[4]"},
                {"bias", {t({2, 3}), t({3}), t({1, 3})}, {}, "bias f64[1, 3]"},
                {"scalar", {t({}), {}, {}}, {}, "x [..., D]"},
                {"no columns", {t({2, 0}), {}, {}}, {}, "D at least 1"},
                {"types", {t({2, 3}), t({3}).to(DType::f32), {}}, {}, "equal floating types"},
                {"epsilon", {t({2, 3}), {}, {}}, {{"epsilon", -1.0}}, "epsilon of at least 0"},
            };
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({8192, 256}, 1), sample_normal({256}, 2), sample_normal({256}, 3)}};
          },
      .variations =
          [] {
            return std::vector<OpVariations>{
                {{"rows", {sample_normal({3, 5}, 21), sample_normal({5}, 22), sample_normal({5}, 23)}},
                 {{"epsilon", {0.5}}}},
                {{"wide rows", {sample_normal({2, 67}, 24), sample_normal({67}, 25), sample_normal({67}, 26)}},
                 {{"epsilon", {0.5}}}}};
          },
  });
}

}  // namespace tally::ops
