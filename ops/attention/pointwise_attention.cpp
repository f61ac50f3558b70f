#include "tally/ops/attention/pointwise_attention.h"

#include "tally/autograd/tape.h"
#include "tally/ops/attention/attention_options.h"
#include "tally/ops/entries.h"
#include "tally/ops/input_gradients.h"
#include "tally/ops/kernels/pointwise_attention.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "pointwise_attention";

template <class T>
kernels::MatrixRows<const T> rows_of(const Tensor& x) {
  return {x.strided_data<T>(), x.stride(0)};
}

struct PointwiseAttentionRule {
  static constexpr std::string_view name = kName;
  kernels::AttentionPlan plan;  // its bounds point into offsets
  double normalizer;
  Offsets offsets;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  Saved q, k, v;

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    auto gradients = detail::input_gradients(g, q, k, v);
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      kernels::AttentionBackward<T> data{rows_of<T>(q.get()), rows_of<T>(k.get()), rows_of<T>(v.get())};
      data.gradient_output = gy.data<T>();
      data.gradient_q = gradients.of<T>(0), data.gradient_k = gradients.of<T>(1);
      data.gradient_v = gradients.of<T>(2);
      kernels::pointwise_attention_backward(plan, normalizer, data);
    });
    gradients.give();
  }
};

}  // namespace

Var pointwise_attention(const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                        const PointwiseAttentionOptions& options) {
  const detail::AttentionSizes sizes = detail::check_attention(
      kName, q, k, v, offsets, {.heads = options.heads, .mask = options.mask, .scale = options.scale});
  const bool by_window = options.normalizer == PointwiseNormalizer::window;
  check<ValueError>(by_window ? options.window >= 1 : options.window == 0, kName,
                    "needs a window of at least 1 for the normalizer window, and 0 for visible; got ", options.window);
  kernels::AttentionPlan plan;
  plan.bounds = offsets.bounds();
  plan.heads = sizes.heads;
  plan.width = sizes.width;
  plan.value_width = sizes.value_width;
  plan.scale = sizes.scale;
  plan.causal = options.mask == AttentionMask::causal;
  const auto normalizer = static_cast<double>(options.window);
  const Tensor qt = detail::with_dense_rows(q.value()), kt = detail::with_dense_rows(k.value()),
               vt = detail::with_dense_rows(v.value());
  Tensor output({q.dim(0), v.dim(1)}, q.dtype());
  dispatch_floating(q.dtype(), kName, [&]<class T>(T) {
    kernels::pointwise_attention_forward(plan, normalizer, rows_of<T>(qt), rows_of<T>(kt), rows_of<T>(vt),
                                         output.mutable_data<T>());
  });
  PointwiseAttentionRule rule{plan, normalizer, offsets, Saved(offsets.tensor()), Saved(qt), Saved(kt), Saved(vt)};
  return record(std::move(rule), {&q, &k, &v}, std::move(output));
}

namespace {

PointwiseAttentionOptions options_of(const OpOptions& options) {
  const std::string normalizer = options.text("normalizer", "visible");
  check<ConfigError>(normalizer == "visible" || normalizer == "window", "option",
                     "'normalizer' needs 'visible' or 'window'; got '", normalizer, "'");
  return {.heads = options.integer("heads", 1),
          .mask = detail::attention_mask(options),
          .normalizer = normalizer == "visible" ? PointwiseNormalizer::visible : PointwiseNormalizer::window,
          .window = options.integer("window", 0),
          .scale = options.number("scale", 0)};
}

std::vector<OpSample> samples() {
  std::vector<OpSample> all;
  for (const char* mask : {"causal", "bidirectional"}) {
    const OpOptions two{{"heads", std::int64_t{2}}, {"mask", std::string(mask)}}, one{{"mask", std::string(mask)}};
    all.push_back({"odd", detail::attention_inputs({3, 0, 1, 5}, 6, 10, 1), two});
    all.push_back({"one", detail::attention_inputs({1}, 2, 2, 5), two});
    all.push_back({"one row", detail::attention_inputs({1}, 6, 10, 301), two});
    all.push_back({"empty", detail::attention_inputs({}, 4, 2, 9), two});
    all.push_back({"empty sequences", detail::attention_inputs({0, 0}, 4, 2, 13), two});
    // Several blocks of rows and tiles of keys; then one that is parallel inside.
    all.push_back({"long", detail::attention_inputs({150, 1, 70}, 2, 3, 17), one});
    all.push_back({"parallel inside", detail::attention_inputs({530}, 2, 1, 49), one, false});
    all.push_back({"wide", detail::attention_inputs({6, 0, 3}, 134, 66, 21), two});
    all.push_back({"extreme", detail::attention_inputs({6, 70}, 8, 2, 25, 1e3), two, false});
  }
  return all;
}

}  // namespace

void entries::add_pointwise_attention(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary =
          "HSTU's attention over packed sequences: silu(scale q k^T) v / n per head, without storing the scores.",
      .inputs = {{"q", "[T, heads * d]"},
                 {"k", "[T, heads * d]"},
                 {"v", "[T, heads * e]"},
                 {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each sequence begins, and T"}},
      .options = {{"heads", std::int64_t{1}, "number of heads, side by side in the columns"},
                  {"mask", std::string("causal"), "'causal' or 'bidirectional'"},
                  {"normalizer", std::string("visible"), "what sums are divided by: 'visible' rows or the 'window'"},
                  {"window", std::int64_t{0}, "what the normalizer 'window' divides by"},
                  {"scale", 0.0, "of scores; 0 for 1 / sqrt(d)"}},
      .outputs = {{"output", "[T, heads * e]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {pointwise_attention(in[0], in[1], in[2], Offsets(in[3].value()), options_of(options))};
      },
      .samples = samples,
      .errors =
          [] {
            const auto replaced = [](std::size_t input, Tensor tensor) {
              std::vector<Tensor> inputs = detail::attention_inputs({2, 3}, 6, 4, 1);
              inputs[input] = std::move(tensor);
              return inputs;
            };
            const std::vector<Tensor> good = detail::attention_inputs({2, 3}, 6, 4, 1);
            const std::string window = "window";
            return std::vector<OpError>{
                {"keys", replaced(1, sample_normal({5, 3}, 1)), {}, "needs q and k [T, heads * d]"},
                {"offsets", replaced(3, Offsets::single(6).tensor()), {}, "number of rows 5; got 6"},
                {"types", replaced(0, sample_integers({5, 6}, 1, 3)), {}, "one floating type"},
                {"heads", good, {{"heads", std::int64_t{4}}}, "share evenly"},
                {"mask", good, {{"mask", std::string("diagonal")}}, "'causal' or"},
                {"normalizer", good, {{"normalizer", std::string("padding")}}, "'visible' or 'window'"},
                {"no window", good, {{"normalizer", window}}, "window of at least 1"},
                {"needless window", good, {{"window", std::int64_t{4}}}, "and 0 for visible; got 4"},
            };
          },
      .large =
          [] {
            return OpSample{"large", detail::attention_inputs(std::vector<std::int64_t>(64, 200), 64, 64, 1), {}};
          },
      .variations =
          [] {
            return std::vector<OpVariations>{{{"heads", detail::attention_inputs({4, 0, 1, 3}, 6, 12, 55)},
                                              {{"heads", {std::int64_t{2}, std::int64_t{3}}},
                                               {"mask", {std::string("bidirectional")}},
                                               {"scale", {0.7, -0.3}}}},
                                             {{"window",
                                               detail::attention_inputs({4, 0, 1, 3}, 6, 12, 59),
                                               {{"normalizer", std::string("window")}, {"window", std::int64_t{7}}}},
                                              {{"heads", {std::int64_t{2}, std::int64_t{3}}},
                                               {"mask", {std::string("bidirectional")}},
                                               {"scale", {0.7}}}}};
          },
      .apart = {{"normalizer=visible", "window set"}, {"normalizer=window", "window default"}},
  });
}

}  // namespace tally::ops
