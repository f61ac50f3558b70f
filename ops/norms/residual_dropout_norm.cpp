#include "tally/ops/norms/residual_dropout_norm.h"

#include "tally/ops/entries.h"
#include "tally/ops/norms/norm_family.h"

namespace tally::ops {
namespace {

struct ResidualDropoutNormRule {
  static constexpr std::string_view name = "residual_dropout_norm";
  detail::SavedNorm saved;

  void backward(BackwardContext& g) const { saved.backward(g, {.x = 0, .residual = 1, .weight = 2, .bias = 3}); }
};

NormKind kind_named(const std::string& name) {
  check<ConfigError>(name == "layer" || name == "rms", ResidualDropoutNormRule::name, "needs kind layer or rms; got '",
                     name, "'");
  return name == "layer" ? NormKind::layer : NormKind::rms;
}

}  // namespace

NormedSum residual_dropout_norm(const Var& x, const Var& residual, const Var& weight, const Var& bias,
                                const ResidualDropoutNormOptions& options) {
  check<ShapeError>(residual.defined(), ResidualDropoutNormRule::name, "needs a residual; got x ", x.shape(), " alone");
  detail::NormResult result = detail::normalize(ResidualDropoutNormRule::name, options.kind,
                                                {x, residual, weight, bias}, options.epsilon, options.dropout);
  const Var* inputs[] = {&x, &residual, &weight, &bias};
  std::vector<Var> outputs = record(ResidualDropoutNormRule{std::move(result.saved)}, inputs,
                                    {std::move(result.normalized), std::move(result.sum)});
  return {std::move(outputs[0]), std::move(outputs[1])};
}

void entries::add_residual_dropout_norm(Catalog& catalog) {
  catalog.add({
      .name = "residual_dropout_norm",
      .summary = "sum = residual + dropout(x) and its layer or RMS norm, in one pass.",
      .inputs = {{"x", "[..., D]"},
                 {"residual", "[..., D]"},
                 {.name = "weight", .shape = "[D]", .optional = true},
                 {.name = "bias", .shape = "[D]", .optional = true}},
      .options = {{"kind", std::string("layer"), "layer or rms"},
                  {"epsilon", 1e-5, "added to the variance or the mean of squares"},
                  {"rate", 0.0, "of dropout, in [0, 1)"},
                  {"seed", std::int64_t{0}, "of the dropout key"},
                  {"stream", std::int64_t{0}, "of the dropout key"},
                  {"first_row", std::int64_t{0}, "row of the mask that x begins with"}},
      .outputs = {{"normalized", "[..., D]"}, {"sum", "[..., D]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        const auto [normalized, sum] = residual_dropout_norm(
            in[0], in[1], in[2], in[3],
            {kind_named(options.text("kind", "layer")),
             options.number("epsilon", 1e-5),
             {options.number("rate", 0), options.key(), static_cast<std::uint64_t>(options.integer("first_row", 0))}});
        return {normalized, sum};
      },
      .samples =
          [] {
            const auto inputs = [](const Shape& x, double size = 1) -> std::vector<Tensor> {
              return {sample_normal(x, 1, size), sample_normal(x, 2, size), sample_normal({x[-1]}, 3),
                      sample_normal({x[-1]}, 4)};
            };
            std::vector<OpSample> samples;
            for (const char* kind : {"layer", "rms"}) {
              const auto options = [&](double rate, std::int64_t seed = 5, std::int64_t first_row = 0) {
                return OpOptions{{"kind", std::string(kind)}, {"rate", rate},           {"seed", seed},
                                 {"stream", seed - 5},        {"first_row", first_row}, {"epsilon", 1e-2}};
              };
              samples.push_back({"odd", inputs({5, 7}), options(0.3)});
              samples.push_back({"no dropout", inputs({2, 3, 5}), options(0)});
              samples.push_back({"one", inputs({1, 1}), options(0.5)});
              samples.push_back({"no rows", inputs({0, 3}), options(0.5)});
              samples.push_back({"far rows", inputs({70, 2}), options(0.4, 6, 4000000000)});
              samples.push_back({"wide", inputs({2, 1100}), options(0.2)});
              samples.push_back(
                  {"no weight", {sample_normal({3, 9}, 5), sample_normal({3, 9}, 6), {}, {}}, options(0.2)});
              samples.push_back({"large", inputs({3, 9}, 1e15), options(0.2), false});
            }
            return samples;
          },
      .errors =
          [] {
            const auto t = [](const Shape& shape) { return sample_normal(shape, 1); };
            return std::vector<OpError>{
                {"residual", {t({2, 3}), t({3, 2}), {}, {}}, {}, "residual f64[3, 2]"},
                {"no residual", {t({2, 3}), {}, {}, {}}, {}, "needs a residual"},
                {"weight", {t({2, 3}), t({2, 3}), t({4}), {}}, {}, "weight f64[4]"},
                {"rate", {t({2, 3}), t({2, 3}), {}, {}}, {{"rate", 1.5}}, "rate in [0, 1)"},
                {"kind", {t({2, 3}), t({2, 3}), {}, {}}, {{"kind", std::string("batch")}}, "layer or rms; got 'batch'"},
            };
          },
      .large =
          [] {
            return OpSample{"large",
                            {sample_normal({8192, 256}, 1), sample_normal({8192, 256}, 2), sample_normal({256}, 3),
                             sample_normal({256}, 4)},
                            {{"rate", 0.2}}};
          },
      .variations =
          [] {
            const auto rows = [](const char* name, const Shape& shape) {
              return OpVariations{{name,
                                   {sample_normal(shape, 21), sample_normal(shape, 22), sample_normal({shape[-1]}, 23),
                                    sample_normal({shape[-1]}, 24)}},
                                  {{"kind", {std::string("rms")}},
                                   {"epsilon", {0.5}},
                                   {"rate", {0.3}},
                                   {"seed", {std::int64_t{5}}},
                                   {"stream", {std::int64_t{6}}},
                                   {"first_row", {std::int64_t{4000000000}}}}};
            };
            return std::vector<OpVariations>{rows("rows", {3, 5}), rows("wide rows", {2, 67})};
          },
  });
}

}  // namespace tally::ops
