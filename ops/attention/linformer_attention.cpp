#include "tally/ops/attention/linformer_attention.h"

#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/ops/attention/attention_options.h"
#include "tally/ops/entries.h"
#include "tally/ops/input_gradients.h"
#include "tally/ops/kernels/linformer_attention.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "linformer_attention";

template <class T>
kernels::MatrixRows<const T> rows_of(const Tensor& x) {
  return {x.strided_data<T>(), x.stride(0)};
}

struct LinformerRule {
  static constexpr std::string_view name = kName;
  detail::AttentionSizes sizes;
  Offsets offsets;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  Saved q, k, v, key_projection, value_projection, output, log_sum_exp;

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    auto gradients = detail::input_gradients(g, q, k, v, key_projection, value_projection);
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      kernels::linformer_backward<T>(
          plan<T>(sizes, offsets, q.get(), k.get(), v.get(), key_projection.get(), value_projection.get()),
          {output.get().data<T>(), log_sum_exp.get().data<double>(), gy.data<T>(), gradients.of<T>(0),
           gradients.of<T>(1), gradients.of<T>(2), gradients.of<T>(3), gradients.of<T>(4)});
    });
    gradients.give();
  }

  template <class T>
  static kernels::LinformerPlan<T> plan(const detail::AttentionSizes& sizes, const Offsets& offsets, const Tensor& q,
                                        const Tensor& k, const Tensor& v, const Tensor& key_projection,
                                        const Tensor& value_projection) {
    return {offsets.bounds(),
            sizes.heads,
            sizes.width,
            sizes.value_width,
            sizes.scale,
            key_projection.dim(0),
            key_projection.dim(1),
            rows_of<T>(q),
            rows_of<T>(k),
            rows_of<T>(v),
            key_projection.data<T>(),
            value_projection.data<T>()};
  }
};

std::vector<Tensor> sample_inputs(const std::vector<std::int64_t>& lengths, std::int64_t columns,
                                  std::int64_t value_columns, const Shape& projection, std::uint64_t stream,
                                  double deviation = 1) {
  std::vector<Tensor> inputs = detail::attention_inputs(lengths, columns, value_columns, stream, deviation);
  inputs.insert(inputs.begin() + 3, {sample_normal(projection, stream + 3), sample_normal(projection, stream + 4)});
  return inputs;
}

}  // namespace

Var linformer_attention(const Var& q, const Var& k, const Var& v, const Var& key_projection,
                        const Var& value_projection, const Offsets& offsets, const LinformerOptions& options) {
  const detail::AttentionSizes sizes =
      detail::check_attention(kName, q, k, v, offsets, {.heads = options.heads, .scale = options.scale});
  const Shape &se = key_projection.shape(), &sf = value_projection.shape();
  check<DTypeError>(key_projection.dtype() == q.dtype() && value_projection.dtype() == q.dtype(), kName,
                    "needs projections of the type of q, ", q.dtype(), "; got ", key_projection.dtype(), " and ",
                    value_projection.dtype());
  check<ShapeError>(se.rank() == 2 && se == sf && se[0] > 0 && se[1] >= offsets.longest(), kName,
                    "needs projections [r, L] with L at least the longest sequence, ", offsets.longest(), "; got ", se,
                    " and ", sf);
  const Tensor qt = detail::with_dense_rows(q.value()), kt = detail::with_dense_rows(k.value()),
               vt = detail::with_dense_rows(v.value());
  const Tensor e = key_projection.value().contiguous(), f = value_projection.value().contiguous();
  Tensor output({q.dim(0), v.dim(1)}, q.dtype()), log_sum_exp({q.dim(0), sizes.heads}, DType::f64);
  dispatch_floating(q.dtype(), kName, [&]<class T>(T) {
    kernels::linformer_forward(LinformerRule::plan<T>(sizes, offsets, qt, kt, vt, e, f), output.mutable_data<T>(),
                               log_sum_exp.mutable_data<double>());
  });
  LinformerRule rule{sizes,    offsets,  Saved(offsets.tensor()), Saved(qt),         Saved(kt), Saved(vt),
                     Saved(e), Saved(f), Saved(output),           Saved(log_sum_exp)};
  return record(std::move(rule), {&q, &k, &v, &key_projection, &value_projection}, std::move(output));
}

void entries::add_linformer_attention(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary =
          "Attention over keys and values projected along the sequence: softmax(scale q (E k)^T) (F v) per head.",
      .inputs = {{"q", "[T, heads * d]"},
                 {"k", "[T, heads * d]"},
                 {"v", "[T, heads * e]"},
                 {"key_projection", "[r, L]"},
                 {"value_projection", "[r, L]"},
                 {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each sequence begins, and T"}},
      .options = {{"heads", std::int64_t{1}, "number of heads, side by side in the columns"},
                  {"scale", 0.0, "of scores; 0 for 1 / sqrt(d)"}},
      .outputs = {{"output", "[T, heads * e]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {linformer_attention(in[0], in[1], in[2], in[3], in[4], Offsets(in[5].value()),
                                    {.heads = options.integer("heads", 1), .scale = options.number("scale", 0)})};
      },
      .samples =
          [] {
            const OpOptions two{{"heads", std::int64_t{2}}};
            std::vector<OpSample> samples;
            samples.push_back({"odd", sample_inputs({3, 0, 1, 5}, 6, 10, {3, 7}, 1), two});
            samples.push_back({"one", sample_inputs({1}, 1, 1, {1, 1}, 6)});
            samples.push_back({"one row", sample_inputs({1}, 6, 10, {1, 1}, 301), two});
            samples.push_back({"empty", sample_inputs({}, 4, 2, {2, 3}, 11), two});
            samples.push_back({"empty sequences", sample_inputs({0, 0}, 4, 2, {2, 0}, 16), two});
            samples.push_back({"scale", sample_inputs({4, 2}, 3, 2, {5, 4}, 21), {{"scale", 0.3}}});
            samples.push_back({"long", sample_inputs({70, 3}, 2, 2, {2, 70}, 26)});
            samples.push_back({"many sequences", sample_inputs({1, 2, 1, 3, 2, 1, 1, 2, 1, 2}, 2, 2, {2, 3}, 31)});
            samples.push_back({"wide", sample_inputs({4, 2}, 134, 66, {5, 4}, 41), two});
            samples.push_back({"many projections", sample_inputs({3, 2}, 3, 2, {67, 3}, 46)});
            samples.push_back({"extreme", sample_inputs({6, 70}, 8, 2, {3, 70}, 36, 30), two, false});
            return samples;
          },
      .errors =
          [] {
            const auto replaced = [](std::size_t input, Tensor tensor) {
              std::vector<Tensor> inputs = sample_inputs({2, 3}, 6, 4, {2, 3}, 1);
              inputs[input] = std::move(tensor);
              return inputs;
            };
            return std::vector<OpError>{
                {"keys", replaced(1, sample_normal({5, 3}, 1)), {}, "needs q and k [T, heads * d]"},
                {"too short", sample_inputs({2, 3}, 6, 4, {2, 2}, 1), {}, "at least the longest sequence, 3"},
                {"projections", replaced(4, sample_normal({3, 3}, 1)), {}, "got [2, 3] and [3, 3]"},
                {"types", replaced(3, sample_normal({2, 3}, 1).to(DType::f32)), {}, "of the type of q"},
            };
          },
      .large =
          [] {
            return OpSample{"large", sample_inputs(std::vector<std::int64_t>(64, 200), 64, 64, {64, 200}, 1, 0.1)};
          },
      .flops =
          [](const OpSample& sample) {
            const auto projected = static_cast<double>(sample.inputs[3].dim(0));
            return 4.0 * projected * static_cast<double>(sample.inputs[1].numel() + sample.inputs[2].numel());
          },
      .f32_tolerance = 5e-6,
      .variations =
          [] {
            return std::vector<OpVariations>{{{"heads", sample_inputs({3, 0, 1, 5}, 6, 12, {3, 7}, 51)},
                                              {{"heads", {std::int64_t{2}, std::int64_t{3}}}, {"scale", {0.3, -0.6}}}}};
          },
  });
}

}  // namespace tally::ops
