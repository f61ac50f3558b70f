#include "tally/ops/attention/lsh_attention.h"

#include <algorithm>

#include "tally/autograd/tape.h"
#include "tally/ops/attention/attention_options.h"
#include "tally/ops/entries.h"
#include "tally/ops/input_gradients.h"
#include "tally/ops/kernels/lsh_attention.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "lsh_attention";

/// What a call has beside its tensors.
struct LshSizes {
  detail::AttentionSizes attention;
  bool causal;
  std::int64_t chunk;
};

template <class T>
kernels::LshPlan<T> plan_of(const LshSizes& sizes, const Offsets& offsets, const Tensor& qk, const Tensor& v,
                            const Tensor& rotations) {
  kernels::LshPlan<T> plan;
  plan.bounds = offsets.bounds();
  plan.heads = sizes.attention.heads;
  plan.width = sizes.attention.width;
  plan.value_width = sizes.attention.value_width;
  plan.scale = sizes.attention.scale;
  plan.causal = sizes.causal;
  plan.chunk = sizes.chunk;
  plan.rounds = rotations.dim(0);
  plan.half_buckets = rotations.dim(1);
  plan.rotations = rotations.data<T>();
  plan.qk = {qk.strided_data<T>(), qk.stride(0)};
  plan.v = {v.strided_data<T>(), v.stride(0)};
  return plan;
}

struct LshRule {
  static constexpr std::string_view name = kName;
  LshSizes sizes;
  Offsets offsets;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  Saved qk, v, rotations, output, log_sum_exp;

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    auto gradients = detail::input_gradients(g, qk, v);
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      kernels::lsh_backward<T>(plan_of<T>(sizes, offsets, qk.get(), v.get(), rotations.get()),
                               {output.get().data<T>(), log_sum_exp.get().data<double>(), gy.data<T>(),
                                gradients.of<T>(0), gradients.of<T>(1)});
    });
    gradients.give();
  }
};

std::vector<Tensor> sample_inputs(const std::vector<std::int64_t>& lengths, std::int64_t columns,
                                  std::int64_t value_columns, const Shape& rotations, std::uint64_t stream,
                                  double deviation = 1) {
  std::vector<Tensor> inputs = detail::attention_inputs(lengths, columns, value_columns, stream, deviation);
  inputs[1] = inputs[2];
  inputs[2] = sample_normal(rotations, stream + 3);
  return inputs;
}

std::vector<OpSample> samples() {
  const std::vector<std::int64_t> lengths{3, 0, 1, 5};
  std::vector<OpSample> all;
  for (const char* mask : {"causal", "bidirectional"}) {
    const OpOptions two{{"heads", std::int64_t{2}}, {"mask", std::string(mask)}};
    OpOptions short_chunks = two;
    short_chunks.set("chunk", std::int64_t{2});
    all.push_back({"odd", sample_inputs(lengths, 6, 10, {1, 2, 3}, 1), two});
    all.push_back({"one", sample_inputs({1}, 2, 2, {1, 1, 1}, 5), two});
    all.push_back({"one row", sample_inputs({1}, 6, 10, {1, 2, 3}, 301), two});
    all.push_back({"empty", sample_inputs({}, 4, 2, {1, 2, 2}, 9), two});
    all.push_back({"empty sequences", sample_inputs({0, 0}, 4, 2, {1, 2, 2}, 13), two});
    all.push_back({"short chunks", sample_inputs({17, 6}, 6, 4, {1, 1, 3}, 17), short_chunks});
    all.push_back({"three rounds", sample_inputs({12, 3}, 4, 4, {3, 2, 2}, 21), short_chunks});
    OpOptions scaled = short_chunks;
    scaled.set("scale", 2.0);
    all.push_back({"scale", sample_inputs({7}, 4, 2, {1, 2, 2}, 25), scaled});
    all.push_back({"wide", sample_inputs({9}, 134, 66, {2, 2, 67}, 59), two});
    all.push_back({"long", sample_inputs({300}, 2, 2, {1, 1, 2}, 29), {{"mask", std::string(mask)}}, false});
    // Its key has no direction and stays zero, and the lowest bucket takes it.
    OpSample zeros{"a row of zeros", sample_inputs({9}, 4, 2, {1, 1, 2}, 37), two, false};
    std::fill_n(zeros.inputs[0].mutable_data<double>() + 16, 4, 0.0);
    all.push_back(std::move(zeros));
    all.push_back({"extreme", sample_inputs({6, 40}, 8, 2, {1, 2, 4}, 33, 60), short_chunks, false});
  }
  return all;
}

}  // namespace

Var lsh_attention(const Var& qk, const Var& v, const Var& rotations, const Offsets& offsets,
                  const LshAttentionOptions& options) {
  const detail::AttentionSizes attention = detail::check_attention(
      kName, qk, qk, v, offsets, {.heads = options.heads, .mask = options.mask, .scale = options.scale});
  check<DTypeError>(rotations.dtype() == qk.dtype(), kName, "needs rotations of the type of qk, ", qk.dtype(), "; got ",
                    rotations.dtype());
  const Shape& shape = rotations.shape();
  check<ShapeError>(shape.rank() == 3 && shape[0] > 0 && shape[1] > 0 && shape[2] == attention.width, kName,
                    "needs rotations [rounds, buckets / 2, ", attention.width, "] for heads of that width; got ",
                    shape);
  check<ValueError>(options.chunk >= 1, kName, "needs a chunk of at least 1; got ", options.chunk);
  const LshSizes sizes{attention, options.mask == AttentionMask::causal,
                       std::clamp(offsets.longest(), std::int64_t{1}, options.chunk)};
  const Tensor qt = detail::with_dense_rows(qk.value()), vt = detail::with_dense_rows(v.value());
  const Tensor drawn = rotations.value().contiguous();
  Tensor output({qk.dim(0), v.dim(1)}, qk.dtype()), log_sum_exp({qk.dim(0), attention.heads}, DType::f64);
  dispatch_floating(qk.dtype(), kName, [&]<class T>(T) {
    kernels::lsh_forward(plan_of<T>(sizes, offsets, qt, vt, drawn), output.mutable_data<T>(),
                         log_sum_exp.mutable_data<double>());
  });
  LshRule rule{sizes,     offsets,      Saved(offsets.tensor()), Saved(qt),
               Saved(vt), Saved(drawn), Saved(output),           Saved(log_sum_exp)};
  return record(std::move(rule), {&qk, &v}, std::move(output));
}

void entries::add_lsh_attention(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary = "Softmax attention within buckets of a locality-sensitive hash, in chunks; queries are keys too.",
      .inputs = {{"qk", "[T, heads * d]"},
                 {"v", "[T, heads * e]"},
                 {"rotations", "[rounds, buckets / 2, d]", InputKind::constant, false, "standard normal",
                  "drawn, and a hash has no slope"},
                 {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each sequence begins, and T"}},
      .options = {{"heads", std::int64_t{1}, "number of heads, side by side in the columns"},
                  {"mask", std::string("causal"), "'causal' or 'bidirectional'"},
                  {"chunk", std::int64_t{64}, "rows of a chunk of a bucket; a row sees its own and the one before"},
                  {"scale", 0.0, "of scores; 0 for 1 / sqrt(d)"}},
      .outputs = {{"output", "[T, heads * e]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {lsh_attention(in[0], in[1], in[2], Offsets(in[3].value()),
                              {.heads = options.integer("heads", 1),
                               .mask = detail::attention_mask(options),
                               .chunk = options.integer("chunk", 64),
                               .scale = options.number("scale", 0)})};
      },
      .samples = samples,
      .errors =
          [] {
            const auto replaced = [](std::size_t input, Tensor tensor) {
              std::vector<Tensor> inputs = sample_inputs({2, 3}, 6, 4, {1, 2, 6}, 1);
              inputs[input] = std::move(tensor);
              return inputs;
            };
            const std::vector<Tensor> good = sample_inputs({2, 3}, 6, 4, {1, 2, 6}, 1);
            return std::vector<OpError>{
                {"values", replaced(1, sample_normal({4, 4}, 1)), {}, "v [T, heads * e]"},
                {"rotations", replaced(2, sample_normal({1, 2, 5}, 1)), {}, "needs rotations [rounds, buckets / 2, 6]"},
                {"rotations' type", replaced(2, sample_normal({1, 2, 6}, 1).to(DType::f32)), {}, "of the type of qk"},
                {"chunk", good, {{"chunk", std::int64_t{0}}}, "chunk of at least 1"},
                {"mask", good, {{"mask", std::string("diagonal")}}, "'causal' or"},
            };
          },
      .large =
          [] {
            return OpSample{"large", sample_inputs(std::vector<std::int64_t>(64, 200), 64, 64, {1, 2, 64}, 1), {}};
          },
      .variations =
          [] {
            return std::vector<OpVariations>{
                {{"heads", sample_inputs({7, 0, 1, 4}, 6, 12, {2, 2, 6}, 51)},
                 {{"mask", {std::string("bidirectional")}}, {"chunk", {std::int64_t{2}}}, {"scale", {0.7}}}},
                {{"three heads", sample_inputs({7, 0, 1, 4}, 6, 12, {2, 2, 2}, 55), {{"heads", std::int64_t{3}}}},
                 {{"mask", {std::string("bidirectional")}}, {"chunk", {std::int64_t{2}}}, {"scale", {0.7}}}}};
          },
  });
}

}  // namespace tally::ops
