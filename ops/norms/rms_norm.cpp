#include "tally/ops/norms/rms_norm.h"

#include "tally/ops/entries.h"
#include "tally/ops/norms/norm_family.h"

namespace tally::ops {
namespace {

struct RmsNormRule {
  static constexpr std::string_view name = "rms_norm";
  detail::SavedNorm saved;

  void backward(BackwardContext& g) const { saved.backward(g, {.x = 0, .weight = 1}); }
};

}  // namespace

Var rms_norm(const Var& x, const Var& weight, const RmsNormOptions& options) {
  detail::NormResult result =
      detail::normalize(RmsNormRule::name, NormKind::rms, {x, Var(), weight, Var()}, options.epsilon, {});
  return record(RmsNormRule{std::move(result.saved)}, {&x, &weight}, std::move(result.normalized));
}

void entries::add_rms_norm(Catalog& catalog) {
  catalog.add({
      .name = "rms_norm",
      .summary = "x / sqrt(mean of x^2 + epsilon) * weight over the last dimension.",
      .inputs = {{"x", "[..., D]"}, {.name = "weight", .shape = "[D]", .optional = true}},
      .options = {{"epsilon", 1e-6, "added to the mean of squares"}},
      .outputs = {{"y", "[..., D]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {rms_norm(in[0], in[1], {options.number("epsilon", 1e-6)})};
      },
      .samples =
          [] {
            const auto inputs = [](const Shape& x, double size = 1) -> std::vector<Tensor> {
              return {sample_normal(x, 1, size), sample_normal({x[-1]}, 2)};
            };
            return std::vector<OpSample>{
                {"odd", inputs({5, 7})},
                {"batch, wide epsilon", inputs({2, 3, 19}), {{"epsilon", 0.5}}},
                {"one", inputs({1, 1}), {{"epsilon", 0.5}}},
                {"vector", inputs({6})},
                {"no weight", {sample_normal({3, 5}, 5), {}}},
                {"no rows", inputs({0, 4})},
                {"many rows", inputs({70, 2}), {{"epsilon", 0.1}}},
                {"wide", inputs({2, 1100})},
                {"zero rows", {Tensor::zeros({3, 17}, DType::f64), sample_normal({17}, 9)}, {}, false},
                {"large", inputs({4, 9}, 1e15), {}, false},
                {"small", inputs({4, 9}, 1e-15), {}, false},
            };
          },
      .errors =
          [] {
            const auto t = [](const Shape& shape) { return sample_normal(shape, 1); };
            return std::vector<OpError>{
                {"weight", {t({2, 3}), t({4})}, {}, "weight f64[4]"},
                {"scalar", {t({}), {}}, {}, "x [..., D]"},
                {"no columns", {t({2, 0}), {}}, {}, "D at least 1"},
                {"types", {t({2, 3}), t({3}).to(DType::f32)}, {}, "equal floating types"},
                {"epsilon", {t({2, 3}), {}}, {{"epsilon", -1.0}}, "epsilon of at least 0"},
            };
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({8192, 256}, 1), sample_normal({256}, 2)}};
          },
      .variations =
          [] {
            return std::vector<OpVariations>{
                {{"rows", {sample_normal({3, 5}, 21), sample_normal({5}, 22)}}, {{"epsilon", {0.5}}}},
                {{"wide rows", {sample_normal({2, 67}, 24), sample_normal({67}, 25)}}, {{"epsilon", {0.5}}}}};
          },
  });
}

}  // namespace tally::ops
