#include "tally/ops/attention/feature_map.h"

#include <cmath>

#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/entries.h"
#include "tally/ops/norms/rms_norm.h"
#include "tally/ops/tensor/shape.h"
#include "tally/ops/tensor/softmax.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "feature_map";
constexpr double kUnitEpsilon = 1e-6;

/// (1, x, x_i x_j / sqrt(2)) of rows x [R, d].
Var taylor2(const Var& x) {
  const std::int64_t rows = x.dim(0), d = x.dim(1);
  const Var products = reshape(x, {rows, d, 1}) * reshape(x * std::sqrt(0.5), {rows, 1, d});
  return concat({Var(Tensor::full({rows, 1}, 1, x.dtype())), x, reshape(products, {rows, d * d})}, 1);
}

/// Rows x [R, d] brought to length 1; `epsilon` is added to their squared lengths.
Var unit(const Var& x, double epsilon) {
  const auto d = static_cast<double>(x.dim(1));
  return rms_norm(x, {}, {.epsilon = epsilon / d}) * (1 / std::sqrt(d));
}

}  // namespace

Var feature_map(const Var& x, const FeatureMapOptions& options) {
  check<DTypeError>(is_floating(x.dtype()), kName, "needs x of a floating type; got ", x.dtype());
  check<ValueError>(options.heads >= 1, kName, "needs at least one head; got ", options.heads);
  check<ShapeError>(x.rank() == 2 && x.dim(1) > 0 && x.dim(1) % options.heads == 0, kName,
                    "needs x [T, heads * d] with heads = ", options.heads, "; got ", x.shape());
  const std::int64_t d = x.dim(1) / options.heads;
  const Shape heads{x.dim(0) * options.heads, d}, features{x.dim(0), options.heads * feature_width(options.kind, d)};
  switch (options.kind) {
    case FeatureKind::relu:
      return relu(x);
    case FeatureKind::elu:
      // Not elu(x) + 1, which rounds what is far below 0 to nothing.
      return exp(clamp(x, {.high = 0})) + relu(x);
    case FeatureKind::split_softmax: {
      const Var parts = reshape(x, heads);
      return reshape(softmax(concat({parts, -parts}, 1)), features);
    }
    case FeatureKind::linrec:
      return reshape(unit(reshape(elu(x), heads), kLinRecEpsilon), features);
    case FeatureKind::unit:
      return reshape(unit(reshape(x, heads), kUnitEpsilon), features);
    case FeatureKind::taylor2:
      return reshape(taylor2(reshape(x, heads)), features);
  }
  fail<ValueError>(kName, "knows no such features");
}

namespace {

std::vector<OpSample> samples() {
  std::vector<OpSample> all;
  for (const auto& [word, kind] : words(FeatureKind())) {
    const auto add = [&, text = std::string(word)](const char* name, const Shape& shape, std::int64_t heads,
                                                   double size = 1, bool gradient = true) {
      all.push_back({name, {sample_normal(shape, 1, size)}, {{"kind", text}}, gradient});
      if (heads != 1) all.back().options.set("heads", heads);
    };
    add("odd", {5, 6}, 2);
    // A head of one column has length 1 wherever it is: there is no gradient but rounding.
    const bool of_length_one = kind == FeatureKind::linrec || kind == FeatureKind::unit;
    add("one", {1, 1}, 1, 1, !of_length_one);
    add("empty", {0, 4}, 2);
    add("wide", {2, 67}, 1);
    add("many rows", {300, 6}, 3);
    add("extreme", {6, 8}, 2, 60, false);
    all.push_back({"zeros", {Tensor::zeros({3, 4}, DType::f64)}, {{"kind", std::string(word)}}, false});
  }
  return all;
}

}  // namespace

void entries::add_feature_map(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary = "Features of queries and keys of linear attention, head by head.",
      .inputs = {{"x", "[T, heads * d]"}},
      .options = {{"heads", std::int64_t{1}, "side by side in the columns"},
                  {"kind", std::string("elu"), "'relu', 'elu', 'split_softmax', 'unit', 'linrec' or 'taylor2'"}},
      .outputs = {{"features", "[T, heads * m]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {feature_map(
            in[0], {options.integer("heads", 1), value_of<FeatureKind>(options.text("kind", "elu"), "option 'kind'")})};
      },
      .samples = samples,
      .errors =
          [] {
            const Tensor x = sample_normal({5, 6}, 1);
            return std::vector<OpError>{{"rank", {sample_normal({5}, 1)}, {}, "needs x [T, heads * d]"},
                                        {"heads", {x}, {{"heads", std::int64_t{4}}}, "with heads = 4; got [5, 6]"},
                                        {"no heads", {x}, {{"heads", std::int64_t{0}}}, "at least one head; got 0"},
                                        {"types", {sample_integers({5, 6}, 1, 3)}, {}, "a floating type; got i64"},
                                        {"kind", {x}, {{"kind", std::string("cosine")}}, "knows no \"cosine\""}};
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({12'800, 64}, 1)}};
          },
      .kinks = true,
  });
}

}  // namespace tally::ops
