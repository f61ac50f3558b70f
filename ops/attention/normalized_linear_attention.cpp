#include "tally/ops/attention/normalized_linear_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/core/kernels.h"
#include "tally/ops/attention/attention_options.h"
#include "tally/ops/entries.h"
#include "tally/ops/input_gradients.h"
#include "tally/ops/kernels/normalized_linear_attention.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "normalized_linear_attention";

template <class T>
kernels::MatrixRows<const T> rows_of(const Tensor& x) {
  return {x.strided_data<T>(), x.stride(0)};
}

/// Sizes of a call, without what depends on the element type.
struct Sizes {
  std::int64_t heads, width, value_width, features;
  bool causal;
  double root;
};

/// Checks what a step and a whole call have in common.
Sizes check_sizes(std::int64_t columns, std::int64_t value_columns, const Tensor& directions,
                  const NormalizedLinearAttentionOptions& options) {
  const bool random = options.feature_map == FeatureMap::positive_random;
  const std::int64_t width = columns / options.heads;
  check<ValueError>(random == directions.defined(), kName,
                    random ? "needs directions [m, d] for the positive random feature map; got none"
                           : "needs no directions for the elu feature map; got some");
  check<ShapeError>(!random || (directions.rank() == 2 && directions.dim(0) > 0 && directions.dim(1) == width), kName,
                    "needs directions [m, ", width, "] for heads of that width; got ",
                    random ? directions.shape() : Shape{});
  check<ValueError>(std::isfinite(options.scale) && options.scale >= 0, kName,
                    "needs a finite scale of at least 0; got ", options.scale);
  check<ValueError>(random || options.scale == 0, kName, "needs scale 0 for the elu feature map; got ", options.scale);
  const double scale = options.scale == 0 ? 1 / std::sqrt(static_cast<double>(width)) : options.scale;
  return {options.heads,
          width,
          value_columns / options.heads,
          random ? directions.dim(0) : width,
          options.mask == AttentionMask::causal,
          random ? std::sqrt(scale) : 1};
}

template <class T>
kernels::NormalizedLinearAttentionPlan<T> plan_of(const Sizes& sizes, std::span<const std::int64_t> bounds,
                                                  const Tensor& directions) {
  kernels::NormalizedLinearAttentionPlan<T> plan;
  plan.bounds = bounds;
  plan.heads = sizes.heads;
  plan.width = sizes.width;
  plan.value_width = sizes.value_width;
  plan.causal = sizes.causal;
  plan.directions = directions.defined() ? directions.data<T>() : nullptr;
  plan.features = sizes.features;
  plan.root = sizes.root;
  return plan;
}

struct NormalizedLinearAttentionRule {
  static constexpr std::string_view name = kName;
  Sizes sizes;
  Offsets offsets;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  Saved q, k, v, directions, output, denominators;

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    auto gradients = detail::input_gradients(g, q, k, v);
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      kernels::NormalizedLinearAttentionBackward<T> data;
      data.q = rows_of<T>(q.get());
      data.k = rows_of<T>(k.get());
      data.v = rows_of<T>(v.get());
      data.output = output.get().data<T>();
      data.denominators = denominators.get().data<T>();
      data.gradient_output = gy.data<T>();
      data.gradient_q = gradients.of<T>(0);
      data.gradient_k = gradients.of<T>(1);
      data.gradient_v = gradients.of<T>(2);
      const Tensor drawn = directions.kept() ? directions.get() : Tensor();
      kernels::normalized_linear_attention_backward(plan_of<T>(sizes, offsets.bounds(), drawn), data);
    });
    gradients.give();
  }
};

void check_state(const NormalizedLinearAttentionState& state) {
  const std::int64_t numbers = state.heads * state.features * (state.value_width + 1);
  check<ShapeError>(state.heads > 0 && static_cast<std::int64_t>(state.sums.size()) == numbers &&
                        static_cast<std::int64_t>(state.reference.size()) == state.heads,
                    kName, "needs a state made by normalized_linear_attention_state(); got ", state.heads,
                    " heads and ", state.sums.size(), " numbers");
}

}  // namespace

Var normalized_linear_attention(const Var& q, const Var& k, const Var& v, const Var& directions, const Offsets& offsets,
                                const NormalizedLinearAttentionOptions& options) {
  detail::check_attention(kName, q, k, v, offsets, {.heads = options.heads, .mask = options.mask});
  check<DTypeError>(!directions.defined() || directions.dtype() == q.dtype(), kName,
                    "needs directions of the type of q, ", q.dtype(), "; got ",
                    directions.defined() ? directions.dtype() : q.dtype());
  const Tensor drawn = directions.defined() ? directions.value().contiguous() : Tensor();
  const Sizes sizes = check_sizes(q.dim(1), v.dim(1), drawn, options);
  const Tensor qt = detail::with_dense_rows(q.value()), kt = detail::with_dense_rows(k.value()),
               vt = detail::with_dense_rows(v.value());
  Tensor output({q.dim(0), v.dim(1)}, q.dtype()), denominators({q.dim(0), sizes.heads}, q.dtype());
  dispatch_floating(q.dtype(), kName, [&]<class T>(T) {
    kernels::normalized_linear_attention_forward(plan_of<T>(sizes, offsets.bounds(), drawn), rows_of<T>(qt),
                                                 rows_of<T>(kt), rows_of<T>(vt), output.mutable_data<T>(),
                                                 denominators.mutable_data<T>());
  });
  NormalizedLinearAttentionRule rule{sizes,
                                     offsets,
                                     Saved(offsets.tensor()),
                                     Saved(qt),
                                     Saved(kt),
                                     Saved(vt),
                                     Saved(drawn, drawn.defined()),
                                     Saved(output),
                                     Saved(denominators)};
  return record(std::move(rule), {&q, &k, &v}, std::move(output));
}

NormalizedLinearAttentionState normalized_linear_attention_state(std::int64_t heads, std::int64_t features,
                                                                 std::int64_t value_width) {
  check<ValueError>(heads > 0 && features > 0 && value_width > 0, "normalized_linear_attention_state",
                    "needs sizes above 0; got heads ", heads, ", features ", features, ", value width ", value_width);
  NormalizedLinearAttentionState state{heads, features, value_width, {}, {}};
  state.sums.resize(static_cast<std::size_t>(heads * features * (value_width + 1)));
  state.reference.assign(static_cast<std::size_t>(heads), -std::numeric_limits<double>::infinity());
  return state;
}

void normalized_linear_attention_step(NormalizedLinearAttentionState& state, std::span<const float> q,
                                      std::span<const float> k, std::span<const float> v, const Tensor& directions,
                                      std::span<float> output, const NormalizedLinearAttentionOptions& options) {
  check_state(state);
  const auto columns = static_cast<std::int64_t>(q.size()), value_columns = static_cast<std::int64_t>(v.size());
  const bool fits = options.heads == state.heads && columns % state.heads == 0 && k.size() == q.size() &&
                    value_columns == state.heads * state.value_width && output.size() == v.size();
  check<ShapeError>(fits, kName, "needs q and k [heads * d], v and output [heads * e] of a state of ", state.heads,
                    " heads and e = ", state.value_width, "; got ", options.heads, " heads, q ", q.size(), ", k ",
                    k.size(), ", v ", v.size(), " and output ", output.size());
  const Sizes sizes = check_sizes(columns, value_columns, directions, options);
  check<ShapeError>(sizes.features == state.features, kName, "needs ", state.features, " features; got ",
                    sizes.features);
  const auto plan = plan_of<float>(sizes, {}, directions.defined() ? directions.contiguous() : Tensor());
  const std::int64_t wide = state.value_width + 1;
  std::vector<float> query(static_cast<std::size_t>(state.features)), key(query);
  std::vector<float> value(static_cast<std::size_t>(wide), 1.0f);
  std::vector<double> sums(value.size());
  for (std::int64_t head = 0; head < state.heads; ++head) {
    float unused, weight;
    kernels::map_features(plan, false, q.data() + head * sizes.width, sizes.width, 1, query.data(), &unused);
    kernels::map_features(plan, true, k.data() + head * sizes.width, sizes.width, 1, key.data(), &weight);
    std::copy_n(v.data() + head * state.value_width, state.value_width, value.data());
    kernels::normalized_linear_attention_step(query.data(), key.data(), weight, value.data(), state.features, wide,
                                              state.sums.data() + head * state.features * wide,
                                              state.reference[static_cast<std::size_t>(head)], sums.data());
    const double denominator = sums.back();
    const bool vanishes = denominator < double{kernels::kSmallestDenominator<float>};
    for (std::int64_t i = 0; i < state.value_width; ++i) {
      output[static_cast<std::size_t>(head * state.value_width + i)] =
          vanishes ? 0 : static_cast<float>(sums[static_cast<std::size_t>(i)] / denominator);
    }
  }
}

NormalizedLinearAttentionState merge(const NormalizedLinearAttentionState& a, const NormalizedLinearAttentionState& b) {
  check_state(a);
  check_state(b);
  check<ShapeError>(a.heads == b.heads && a.features == b.features && a.value_width == b.value_width, "merge",
                    "needs states of equal sizes; got heads ", a.heads, " and ", b.heads, ", features ", a.features,
                    " and ", b.features, ", value widths ", a.value_width, " and ", b.value_width);
  NormalizedLinearAttentionState merged = a;
  const std::int64_t numbers = a.features * (a.value_width + 1);
  for (std::size_t head = 0; head < a.reference.size(); ++head) {
    const double reference = std::max(a.reference[head], b.reference[head]);
    const auto factor = [&](double of) { return std::isinf(of) ? 0.0 : std::exp(of - reference); };
    double* to = merged.sums.data() + static_cast<std::int64_t>(head) * numbers;
    kernels::scale(to, factor(a.reference[head]), numbers);
    kernels::axpy(to, factor(b.reference[head]), b.sums.data() + static_cast<std::int64_t>(head) * numbers, numbers);
    merged.reference[head] = reference;
  }
  return merged;
}

namespace {

NormalizedLinearAttentionOptions options_of(const OpOptions& options) {
  const std::string map = options.text("feature_map", "elu");
  check<ConfigError>(map == "elu" || map == "positive_random", "option",
                     "'feature_map' needs 'elu' or 'positive_random'; got '", map, "'");
  return {.heads = options.integer("heads", 1),
          .mask = detail::attention_mask(options),
          .feature_map = map == "elu" ? FeatureMap::elu : FeatureMap::positive_random,
          .scale = options.number("scale", 0)};
}

std::vector<Tensor> sample_inputs(const std::vector<std::int64_t>& lengths, std::int64_t columns,
                                  std::int64_t value_columns, std::uint64_t stream, const Shape& directions = {},
                                  double deviation = 1) {
  std::vector<Tensor> inputs = detail::attention_inputs(lengths, columns, value_columns, stream, deviation);
  inputs.insert(inputs.begin() + 3, directions.rank() == 2 ? sample_normal(directions, stream + 3) : Tensor());
  return inputs;
}

std::vector<OpSample> samples() {
  const std::vector<std::int64_t> lengths{3, 0, 1, 5};
  std::vector<OpSample> all;
  for (const char* mask : {"causal", "bidirectional"}) {
    const OpOptions elu{{"heads", std::int64_t{2}}, {"mask", std::string(mask)}};
    OpOptions random = elu;
    random.set("feature_map", std::string("positive_random"));
    all.push_back({"odd", sample_inputs(lengths, 6, 10, 1), elu});
    all.push_back({"one", sample_inputs({1}, 2, 2, 5), elu});
    all.push_back({"one row", sample_inputs({1}, 6, 10, 301), elu});
    all.push_back({"empty", sample_inputs({}, 4, 2, 9), elu});
    all.push_back({"empty sequences", sample_inputs({0, 0}, 4, 2, 13), elu});
    all.push_back({"random features", sample_inputs(lengths, 6, 4, 17, {5, 3}), random});
    OpOptions scaled = random;
    scaled.set("scale", 0.7);
    all.push_back({"random features, scale", sample_inputs({4, 2}, 4, 6, 21, {7, 2}), scaled});
    all.push_back({"wide", sample_inputs({6, 0, 3}, 134, 66, 45), elu});
    all.push_back({"wide random features", sample_inputs({5}, 66, 34, 49, {67, 33}), random});
    // Several chunks, and references that rise within them.
    const OpOptions single{{"mask", std::string(mask)}};
    OpOptions single_random = single;
    single_random.set("feature_map", std::string("positive_random"));
    all.push_back({"long", sample_inputs({150, 1, 70}, 2, 2, 25), single});
    all.push_back({"long random features", sample_inputs({150}, 2, 2, 29, {3, 2}, 1.5), single_random});
    all.push_back({"many features", sample_inputs({140}, 2, 1, 33, {100, 2}), single_random, false});
    // Features from e^-30 to 30; keys whose weights lie up to e^100 apart.
    all.push_back({"extreme", sample_inputs({6, 70}, 8, 2, 37, {}, 10), elu, false});
    all.push_back({"extreme random features", sample_inputs({6, 70}, 8, 2, 41, {6, 4}, 12), random, false});
  }
  return all;
}

}  // namespace

void entries::add_normalized_linear_attention(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary = "Linear attention over packed sequences: phi(q) sum phi(k) v / phi(q) sum phi(k) per head, in chunks.",
      .inputs = {{"q", "[T, heads * d]"},
                 {"k", "[T, heads * d]"},
                 {"v", "[T, heads * e]"},
                 {.name = "directions",
                  .shape = "[m, d]",
                  .kind = InputKind::constant,
                  .optional = true,
                  .doc = "of the positive random features",
                  .no_gradient = "drawn, not learned"},
                 {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each sequence begins, and T"}},
      .options = {{"heads", std::int64_t{1}, "number of heads, side by side in the columns"},
                  {"mask", std::string("causal"), "'causal' or 'bidirectional'"},
                  {"feature_map", std::string("elu"), "'elu' (elu + 1) or 'positive_random' (FAVOR+)"},
                  {"scale", 0.0, "of the scores that random features approximate; 0 for 1 / sqrt(d)"}},
      .outputs = {{"output", "[T, heads * e]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {normalized_linear_attention(in[0], in[1], in[2], in[3], Offsets(in[4].value()), options_of(options))};
      },
      .samples = samples,
      .errors =
          [] {
            const auto replaced = [](std::size_t input, Tensor tensor) {
              std::vector<Tensor> inputs = sample_inputs({2, 3}, 6, 4, 1);
              inputs[input] = std::move(tensor);
              return inputs;
            };
            const OpOptions random{{"feature_map", std::string("positive_random")}};
            return std::vector<OpError>{
                {"keys", replaced(1, sample_normal({5, 3}, 1)), {}, "needs q and k [T, heads * d]"},
                {"offsets", replaced(4, Offsets::single(6).tensor()), {}, "number of rows 5; got 6"},
                {"types", replaced(0, sample_integers({5, 6}, 1, 3)), {}, "one floating type"},
                {"no directions", sample_inputs({2, 3}, 6, 4, 1), random, "needs directions [m, d]"},
                {"directions", replaced(3, sample_normal({4, 5}, 1)), random, "needs directions [m, 6]"},
                {"directions' type", replaced(3, sample_normal({4, 6}, 1).to(DType::f32)), random, "of the type of q"},
                {"unused directions", replaced(3, sample_normal({4, 6}, 1)), {}, "needs no directions"},
                {"scale", sample_inputs({2, 3}, 6, 4, 1), {{"scale", 2.0}}, "needs scale 0"},
                {"feature map", sample_inputs({2, 3}, 6, 4, 1), {{"feature_map", std::string("relu")}}, "got 'relu'"},
                {"mask", sample_inputs({2, 3}, 6, 4, 1), {{"mask", std::string("diagonal")}}, "'causal' or"},
            };
          },
      .large =
          [] {
            return OpSample{"large", sample_inputs(std::vector<std::int64_t>(64, 200), 64, 64, 1), {}};
          },
      .flops =
          [](const OpSample& sample) {
            // A row's products with the state, read and written; those within a chunk are the method's price.
            const auto heads = static_cast<double>(sample.options.integer("heads", 1));
            const Tensor &k = sample.inputs[1], &v = sample.inputs[2], &directions = sample.inputs[3];
            const double width = static_cast<double>(k.dim(1)) / heads;
            const double features = directions.defined() ? static_cast<double>(directions.dim(0)) : width;
            return 4.0 * static_cast<double>(v.numel()) * features;
          },
      .f32_tolerance = 1e-5,
      .variations =
          [] {
            // A random feature needs directions of a head's width.
            const auto random = [](std::int64_t heads) {
              return OpVariations{{"random features of " + std::to_string(heads),
                                   sample_inputs({4, 0, 1, 3}, 6, 12, 51, {5, 6 / heads}),
                                   {{"heads", heads}, {"feature_map", std::string("positive_random")}}},
                                  {{"mask", {std::string("bidirectional")}}, {"scale", {0.7}}}};
            };
            return std::vector<OpVariations>{
                {{"elu", sample_inputs({4, 0, 1, 3}, 6, 12, 55)},
                 {{"heads", {std::int64_t{2}, std::int64_t{3}}}, {"mask", {std::string("bidirectional")}}}},
                random(1),
                random(3)};
          },
      .apart = {{"feature_map=elu", "directions given"},
                {"feature_map=positive_random", "directions absent"},
                {"feature_map=elu", "scale set"},
                {"scale set", "directions absent"}},
  });
}

}  // namespace tally::ops
