#include "tally/ops/recurrent/causal_conv1d.h"

#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/causal_conv1d.h"
#include "tally/ops/lookup/lookup_call.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "causal_conv1d";

struct CausalConv1dRule {
  static constexpr std::string_view name = kName;
  Offsets offsets;
  std::int64_t width, taps;
  bool silu;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  Saved x, weight, bias, initial;

  template <class T>
  static const T* data_of(const Saved& saved) {
    return saved.kept() ? saved.get().data<T>() : nullptr;
  }

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    const DType dtype = gy.dtype();
    dispatch_floating(dtype, name, [&]<class T>(T) {
      const kernels::ConvolutionRows<T> rows{offsets.bounds(), width, taps, data_of<T>(x), data_of<T>(initial)};
      const T *w = data_of<T>(weight), *cotangents = gy.data<T>();
      Tensor before;
      if (silu) {
        before = Tensor(gy.shape(), dtype);
        T* to = before.mutable_data<T>();
        kernels::causal_conv1d(rows, w, data_of<T>(bias), false, to);
        kernels::silu_cotangents(cotangents, to, before.numel());
        cotangents = to;
      }
      if (g.needs(1) || g.needs(2)) {
        Tensor gweight({taps, width}, dtype), gbias({width}, dtype);
        kernels::causal_conv1d_weight_gradient(rows, cotangents, g.needs(1) ? gweight.mutable_data<T>() : nullptr,
                                               g.needs(2) ? gbias.mutable_data<T>() : nullptr);
        if (g.needs(1)) g.give(1, gweight.transpose(0, 1).contiguous());
        if (g.needs(2)) g.give(2, std::move(gbias));
      }
      if (g.needs(3)) {
        Tensor ginitial({offsets.count(), taps - 1, width}, dtype);
        kernels::causal_conv1d_initial_gradient(rows, w, cotangents, ginitial.mutable_data<T>());
        g.give(3, std::move(ginitial));
      }
      if (g.needs(0)) {
        Tensor gx(gy.shape(), dtype);
        kernels::causal_conv1d_rows_gradient(rows, w, cotangents, gx.mutable_data<T>());
        g.give(0, std::move(gx));
      }
    });
  }
};

std::vector<Tensor> inputs_of(const std::vector<std::int64_t>& lengths, std::int64_t width, std::int64_t taps,
                              std::uint64_t stream, double deviation = 1) {
  const std::int64_t rows = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  return {sample_normal({rows, width}, stream, deviation), sample_normal({width, taps}, stream + 1),
          sample_normal({width}, stream + 2),
          sample_normal({static_cast<std::int64_t>(lengths.size()), taps - 1, width}, stream + 3, deviation),
          Offsets::from_lengths(lengths).tensor()};
}

std::vector<OpSample> samples() {
  const OpOptions silu{{"activation", std::string("silu")}};
  std::vector<OpSample> all;
  const auto add = [&](std::string name, std::vector<Tensor> inputs, const OpOptions& options = {},
                       bool gradient = true) {
    all.push_back({std::move(name), std::move(inputs), options, gradient});
  };
  add("odd", inputs_of({3, 0, 1, 5}, 3, 4, 1));
  add("odd, silu", inputs_of({3, 0, 1, 5}, 3, 4, 1), silu);
  add("shorter than the kernel", inputs_of({1, 2, 1, 0, 3, 1}, 2, 6, 5), silu);
  std::vector<Tensor> alone = inputs_of({2, 1, 4}, 3, 5, 9);
  alone[2] = alone[3] = Tensor();
  add("weights alone", alone, silu);
  add("one", inputs_of({1}, 1, 1, 13));
  add("kernel of one row", inputs_of({4, 1}, 5, 1, 17), silu);
  add("no sequence", inputs_of({}, 3, 4, 21), silu);
  add("empty sequences", inputs_of({0, 0}, 3, 4, 25), silu);
  add("no columns", inputs_of({3, 1}, 0, 4, 29), silu);
  add("wide", inputs_of({3, 2}, 67, 3, 33), silu);
  // Sums of more than one run, within the rows before a sequence and across its beginning.
  add("long kernel", inputs_of({30, 5, 1}, 2, 40, 37));
  // Blocks of rows that end inside sequences, between them and just after a beginning.
  add("long", inputs_of({150, 1, 63, 2, 300}, 2, 4, 41), silu);
  add("many sequences", inputs_of(std::vector<std::int64_t>(50, 2), 2, 4, 45));
  add("extreme", inputs_of({6, 2}, 4, 3, 49, 1e4), silu, false);
  return all;
}

}  // namespace

Var causal_conv1d(const Var& x, const Var& weight, const Var& bias, const Var& initial, const Offsets& offsets,
                  Activation activation) {
  check<ValueError>(activation == Activation::none || activation == Activation::silu, kName,
                    "needs the activation none or silu; got ", name_of(activation));
  detail::check_one_type(kName, {{"x", &x}, {"weight", &weight}, {"bias", &bias}, {"initial", &initial}});
  const bool shaped = x.rank() == 2 && weight.rank() == 2 && weight.dim(0) == x.dim(1) && weight.dim(1) > 0;
  const std::int64_t width = shaped ? x.dim(1) : 0, taps = shaped ? weight.dim(1) : 1;
  check<ShapeError>(shaped && (!bias.defined() || bias.shape() == Shape{width}) &&
                        (!initial.defined() || initial.shape() == Shape{offsets.count(), taps - 1, width}),
                    kName,
                    "needs x [T, D], weight [D, W] with W > 0, bias [D] or none and initial [N, W - 1, D] or none; "
                    "got x ",
                    x.shape(), ", weight ", weight.shape(),
                    bias.defined() ? tally::detail::join(", bias ", bias.shape()) : "",
                    initial.defined() ? tally::detail::join(", initial ", initial.shape()) : "", " and ",
                    offsets.count(), " sequences");
  offsets.check_rows(x.dim(0), kName);
  const bool silu = activation == Activation::silu;
  const auto dense = [](const Var& input) { return input.defined() ? input.value().contiguous() : Tensor(); };
  const Tensor rows = dense(x), b = dense(bias), first = dense(initial);
  // Its rows are of one tap each, as vectors of columns read them.
  const Tensor by_tap = weight.value().transpose(0, 1).contiguous();
  Tensor y(x.shape(), x.dtype());
  dispatch_floating(x.dtype(), kName, [&]<class T>(T) {
    kernels::causal_conv1d<T>(
        {offsets.bounds(), width, taps, rows.data<T>(), first.defined() ? first.data<T>() : nullptr}, by_tap.data<T>(),
        b.defined() ? b.data<T>() : nullptr, silu, y.mutable_data<T>());
  });
  const bool sees_rows = silu || weight.tracked(), sees_weight = silu || x.tracked() || initial.tracked();
  CausalConv1dRule rule{offsets,
                        width,
                        taps,
                        silu,
                        Saved(offsets.tensor()),
                        Saved(rows, sees_rows),
                        Saved(by_tap, sees_weight),
                        Saved(b, silu && b.defined()),
                        Saved(first, sees_rows && first.defined())};
  return record(std::move(rule), {&x, &weight, &bias, &initial}, std::move(y));
}

void entries::add_causal_conv1d(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary = "Depthwise causal convolution along packed sequences, with the rows before each of them.",
      .inputs = {{"x", "[T, D]"},
                 {"weight", "[D, W]", InputKind::differentiable, false, "a row's own weight last"},
                 {.name = "bias", .shape = "[D]", .optional = true},
                 {"initial", "[N, W - 1, D]", InputKind::differentiable, true,
                  "rows before each sequence, oldest first; absent: zeros"},
                 {"offsets", "[N + 1]", InputKind::integer}},
      .options = {{"activation", std::string("none"), "none or silu"}},
      .outputs = {{"y", "[T, D]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {causal_conv1d(in[0], in[1], in[2], in[3], Offsets(in[4].value()),
                              activation_named(options.text("activation", "none")))};
      },
      .samples = samples,
      .errors =
          [] {
            const auto replaced = [](std::size_t input, Tensor tensor) {
              std::vector<Tensor> inputs = inputs_of({2, 3}, 2, 3, 1);
              inputs[input] = std::move(tensor);
              return inputs;
            };
            return std::vector<OpError>{
                {"rank", replaced(0, sample_normal({5}, 1)), {}, "needs x [T, D], weight [D, W]"},
                {"weight", replaced(1, sample_normal({3, 2}, 1)), {}, "weight [3, 2]"},
                {"no tap", replaced(1, sample_normal({2, 0}, 1)), {}, "weight [2, 0]"},
                {"bias", replaced(2, sample_normal({3}, 1)), {}, "bias [3]"},
                {"initial of another kernel", replaced(3, sample_normal({2, 3, 2}, 1)), {}, "initial [2, 3, 2]"},
                {"initial of other sequences", replaced(3, sample_normal({1, 2, 2}, 1)), {}, "and 2 sequences"},
                {"types", replaced(1, sample_normal({2, 3}, 1).to(DType::f32)), {}, "inputs of one floating type"},
                {"rows", replaced(4, Tensor::from<std::int64_t>({0, 2, 6}, {3})), {}, "number of rows 5; got 6"},
                {"activation",
                 inputs_of({2, 3}, 2, 3, 1),
                 {{"activation", std::string("tanh")}},
                 "the activation none or silu; got tanh"}};
          },
      .large =
          [] {
            return OpSample{"large", inputs_of(std::vector<std::int64_t>(128, 200), 128, 4, 1)};
          },
      .variations =
          [] {
            const std::vector<std::pair<std::string, std::vector<OptionValue>>> values{
                {"activation", {std::string("silu")}}};
            return std::vector<OpVariations>{{{"taps", inputs_of({3, 0, 1, 4}, 3, 4, 53)}, values},
                                             {{"wide taps", inputs_of({2, 3}, 17, 3, 57)}, values}};
          },
  });
}

}  // namespace tally::ops
