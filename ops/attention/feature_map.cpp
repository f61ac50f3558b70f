#include "tally/ops/attention/feature_map.h"

#include "tally/autograd/tape.h"
#include "tally/ops/attention/feature_rows.h"
#include "tally/ops/entries.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "feature_map";

detail::FeatureRows rows_of(const Tensor& x, const FeatureMapOptions& options) {
  return {options.kind, x.dim(0) * options.heads, x.dim(1) / options.heads};
}

struct FeatureMapRule {
  static constexpr std::string_view name = kName;
  FeatureMapOptions options;
  Saved x;

  void backward(BackwardContext& g) const {
    const Tensor& rows = x.get();
    const Tensor& gy = g.cotangent();
    Tensor gx(rows.shape(), rows.dtype());
    dispatch_floating(rows.dtype(), name, [&]<class T>(T) {
      detail::map_rows_backward(rows_of(rows, options), rows.data<T>(), gy.data<T>(), gx.mutable_data<T>());
    });
    g.give(0, std::move(gx));
  }
};

}  // namespace

Var feature_map(const Var& x, const FeatureMapOptions& options) {
  check<DTypeError>(is_floating(x.dtype()), kName, "needs x of a floating type; got ", x.dtype());
  check<ValueError>(options.heads >= 1, kName, "needs at least one head; got ", options.heads);
  check<ShapeError>(x.rank() == 2 && x.dim(1) > 0 && x.dim(1) % options.heads == 0, kName,
                    "needs x [T, heads * d] with heads = ", options.heads, "; got ", x.shape());
  const Tensor rows = x.value().contiguous();
  const std::int64_t width = feature_width(options.kind, x.dim(1) / options.heads);
  Tensor y({x.dim(0), options.heads * width}, x.dtype());
  dispatch_floating(x.dtype(), kName,
                    [&]<class T>(T) { detail::map_rows(rows_of(rows, options), rows.data<T>(), y.mutable_data<T>()); });
  return record(FeatureMapRule{options, Saved(rows)}, {&x}, std::move(y));
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
    add("one", {1, 1}, 1);
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
                  {"kind", std::string("elu"), "'relu', 'elu', 'split_softmax', 'linrec' or 'taylor2'"}},
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
