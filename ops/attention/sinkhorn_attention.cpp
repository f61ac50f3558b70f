#include "tally/ops/attention/sinkhorn_attention.h"

#include <algorithm>
#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/attention/attention_options.h"
#include "tally/ops/entries.h"
#include "tally/ops/input_gradients.h"
#include "tally/ops/kernels/sinkhorn_attention.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "sinkhorn_attention";

/// What a call has beside its tensors.
struct SinkhornSizes {
  detail::AttentionSizes attention;
  bool causal;
  std::int64_t block, iterations;
  double temperature;
};

template <class T>
kernels::SinkhornAttentionPlan<T> plan_of(const SinkhornSizes& sizes, const Offsets& offsets, const Tensor& q,
                                          const Tensor& k, const Tensor& v, const Tensor& logits) {
  kernels::SinkhornAttentionPlan<T> plan;
  plan.bounds = offsets.bounds();
  plan.heads = sizes.attention.heads;
  plan.width = sizes.attention.width;
  plan.value_width = sizes.attention.value_width;
  plan.scale = sizes.attention.scale;
  plan.causal = sizes.causal;
  plan.block = sizes.block;
  plan.iterations = sizes.iterations;
  plan.temperature = sizes.temperature;
  plan.logit_columns = logits.dim(1);
  plan.q = {q.strided_data<T>(), q.stride(0)};
  plan.k = k.data<T>();
  plan.v = v.data<T>();
  plan.logits = logits.data<T>();
  return plan;
}

struct SinkhornRule {
  static constexpr std::string_view name = kName;
  SinkhornSizes sizes;
  Offsets offsets;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  Saved q, k, v, logits, output, log_sum_exp;

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    auto gradients = detail::input_gradients(g, q, k, v, logits);
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      kernels::sinkhorn_attention_backward<T>(
          plan_of<T>(sizes, offsets, q.get(), k.get(), v.get(), logits.get()),
          {output.get().data<T>(), log_sum_exp.get().data<double>(), gy.data<T>(), gradients.of<T>(0),
           gradients.of<T>(1), gradients.of<T>(2), gradients.of<T>(3)});
    });
    gradients.give();
  }
};

std::vector<Tensor> sample_inputs(const std::vector<std::int64_t>& lengths, std::int64_t columns,
                                  std::int64_t value_columns, std::int64_t block, std::int64_t logit_columns,
                                  std::uint64_t stream, double deviation = 1) {
  std::vector<Tensor> inputs = detail::attention_inputs(lengths, columns, value_columns, stream, deviation);
  const std::int64_t blocks = sinkhorn_blocks(Offsets(inputs[3]), block);
  inputs.insert(inputs.begin() + 3, sample_normal({blocks, logit_columns}, stream + 3, deviation));
  return inputs;
}

std::vector<OpSample> samples() {
  std::vector<OpSample> all;
  for (const char* mask : {"causal", "bidirectional"}) {
    const auto with = [&](std::int64_t block) {
      return OpOptions{{"heads", std::int64_t{2}}, {"mask", std::string(mask)}, {"block", block}};
    };
    all.push_back({"odd", sample_inputs({7, 0, 1, 4}, 6, 10, 2, 4, 1), with(2)});
    all.push_back({"one", sample_inputs({1}, 2, 2, 3, 1, 5), with(3)});
    all.push_back({"one row", sample_inputs({1}, 6, 10, 3, 1, 301), with(3)});
    all.push_back({"empty", sample_inputs({}, 4, 2, 2, 0, 9), with(2)});
    all.push_back({"empty sequences", sample_inputs({0, 0}, 4, 2, 2, 3, 13), with(2)});
    all.push_back({"blocks of one row", sample_inputs({5}, 4, 2, 1, 7, 17), with(1)});
    OpOptions other = with(2);
    other.set("iterations", std::int64_t{0});
    other.set("temperature", 2.0);
    other.set("scale", 0.3);
    all.push_back({"no iterations", sample_inputs({6, 3}, 4, 2, 2, 3, 21), other});
    all.push_back({"one block", sample_inputs({5}, 2, 2, 64, 1, 25), {{"mask", std::string(mask)}}});
    all.push_back(
        {"one head", sample_inputs({5, 2}, 3, 2, 2, 3, 37), {{"mask", std::string(mask)}, {"block", std::int64_t{2}}}});
    all.push_back({"wide", sample_inputs({5}, 134, 66, 2, 3, 41), with(2)});
    all.push_back({"long", sample_inputs({150}, 2, 2, 16, 10, 29), with(16), false});
    all.push_back({"extreme", sample_inputs({13}, 8, 2, 2, 7, 33, 30), with(2), false});
  }
  return all;
}

}  // namespace

std::int64_t sinkhorn_blocks(const Offsets& offsets, std::int64_t block) {
  check<ValueError>(block >= 1, kName, "needs a block of at least 1; got ", block);
  std::int64_t blocks = 0;
  for (std::int64_t i = 0; i < offsets.count(); ++i) blocks += block_count(offsets.length(i), block);
  return blocks;
}

Var sinkhorn_attention(const Var& q, const Var& k, const Var& v, const Var& sort_logits, const Offsets& offsets,
                       const SinkhornAttentionOptions& options) {
  const detail::AttentionSizes attention = detail::check_attention(
      kName, q, k, v, offsets, {.heads = options.heads, .mask = options.mask, .scale = options.scale});
  check<DTypeError>(sort_logits.dtype() == q.dtype(), kName, "needs sort logits of the type of q, ", q.dtype(),
                    "; got ", sort_logits.dtype());
  check<ValueError>(options.iterations >= 0, kName, "needs at least 0 iterations; got ", options.iterations);
  check<ValueError>(std::isfinite(options.temperature) && options.temperature > 0, kName,
                    "needs a finite temperature above 0; got ", options.temperature);
  const std::int64_t blocks = sinkhorn_blocks(offsets, options.block);
  const std::int64_t longest = block_count(offsets.longest(), options.block);
  const Shape& shape = sort_logits.shape();
  check<ShapeError>(shape.rank() == 2 && shape[0] == blocks && shape[1] >= longest, kName, "needs sort logits [",
                    blocks, ", at least ", longest, "] for blocks of ", options.block, "; got ", shape);
  // A block above every sequence is as large as the longest: buffers are of its size.
  const std::int64_t block = std::clamp(offsets.longest(), std::int64_t{1}, options.block);
  const SinkhornSizes sizes{attention, options.mask == AttentionMask::causal, block, options.iterations,
                            options.temperature};
  const Tensor qt = detail::with_dense_rows(q.value()), kt = k.value().contiguous(), vt = v.value().contiguous(),
               logits = sort_logits.value().contiguous();
  Tensor output({q.dim(0), v.dim(1)}, q.dtype()), log_sum_exp({q.dim(0), attention.heads}, DType::f64);
  dispatch_floating(q.dtype(), kName, [&]<class T>(T) {
    kernels::sinkhorn_attention_forward(plan_of<T>(sizes, offsets, qt, kt, vt, logits), output.mutable_data<T>(),
                                        log_sum_exp.mutable_data<double>());
  });
  SinkhornRule rule{sizes,     offsets,       Saved(offsets.tensor()), Saved(qt),         Saved(kt),
                    Saved(vt), Saved(logits), Saved(output),           Saved(log_sum_exp)};
  return record(std::move(rule), {&q, &k, &v, &sort_logits}, std::move(output));
}

void entries::add_sinkhorn_attention(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary = "Attention to one's own block of rows and to a mixture of blocks by a soft permutation.",
      .inputs = {{"q", "[T, heads * d]"},
                 {"k", "[T, heads * d]"},
                 {"v", "[T, heads * e]"},
                 {.name = "sort_logits", .shape = "[blocks, L]", .doc = "of each block against its sequence's blocks"},
                 {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each sequence begins, and T"}},
      .options = {{"heads", std::int64_t{1}, "number of heads, side by side in the columns"},
                  {"mask", std::string("causal"), "'causal' (earlier blocks only) or 'bidirectional'"},
                  {"block", std::int64_t{64}, "rows of a block"},
                  {"iterations", std::int64_t{8}, "of normalising columns, then rows"},
                  {"temperature", 0.75, "divides the logits"},
                  {"scale", 0.0, "of scores; 0 for 1 / sqrt(d)"}},
      .outputs = {{"output", "[T, heads * e]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {sinkhorn_attention(in[0], in[1], in[2], in[3], Offsets(in[4].value()),
                                   {.heads = options.integer("heads", 1),
                                    .mask = detail::attention_mask(options),
                                    .block = options.integer("block", 64),
                                    .iterations = options.integer("iterations", 8),
                                    .temperature = options.number("temperature", 0.75),
                                    .scale = options.number("scale", 0)})};
      },
      .samples = samples,
      .errors =
          [] {
            const auto replaced = [](std::size_t input, Tensor tensor) {
              std::vector<Tensor> inputs = sample_inputs({2, 3}, 6, 4, 2, 2, 1);
              inputs[input] = std::move(tensor);
              return inputs;
            };
            const std::vector<Tensor> good = sample_inputs({2, 3}, 6, 4, 2, 2, 1);
            const OpOptions two{{"block", std::int64_t{2}}};
            return std::vector<OpError>{
                {"keys", replaced(1, sample_normal({5, 3}, 1)), two, "needs q and k [T, heads * d]"},
                {"logits", replaced(3, sample_normal({2, 2}, 1)), two, "needs sort logits [3, at least 2]"},
                {"too few columns", replaced(3, sample_normal({3, 1}, 1)), two, "got [3, 1]"},
                {"logits' type", replaced(3, sample_normal({3, 2}, 1).to(DType::f32)), two, "of the type of q"},
                {"block", good, {{"block", std::int64_t{0}}}, "block of at least 1"},
                {"iterations", good, {{"block", std::int64_t{2}}, {"iterations", std::int64_t{-1}}}, "iterations"},
                {"temperature", good, {{"block", std::int64_t{2}}, {"temperature", 0.0}}, "temperature above 0"},
                {"mask", good, {{"mask", std::string("diagonal")}}, "'causal' or"},
            };
          },
      .large =
          [] {
            return OpSample{"large", sample_inputs(std::vector<std::int64_t>(64, 200), 64, 64, 64, 4, 1), {}};
          },
      .f32_tolerance = 5e-6,
      .variations =
          [] {
            const auto heads = [](const char* name, std::int64_t block, std::int64_t blocks) {
              return OpVariations{{name, sample_inputs({7, 0, 1, 4}, 6, 12, block, blocks, 51), {{"block", block}}},
                                  {{"heads", {std::int64_t{2}, std::int64_t{3}}},
                                   {"mask", {std::string("bidirectional")}},
                                   {"iterations", {std::int64_t{0}, std::int64_t{2}}},
                                   {"temperature", {2.0}},
                                   {"scale", {0.3}}}};
            };
            return std::vector<OpVariations>{heads("blocks of two", 2, 4), heads("whole sequences", 64, 2)};
          },
  });
}

}  // namespace tally::ops
