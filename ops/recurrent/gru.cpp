#include "tally/ops/recurrent/gru.h"

#include <algorithm>
#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/columns.h"
#include "tally/ops/kernels/gru.h"
#include "tally/ops/kernels/step_groups.h"

namespace tally::ops {
namespace {

/// Rows that one task sums for the bias.
constexpr std::int64_t kBiasRows = 256;

/// Column sums of [a, b], a [rows, 2 width] within rows of 3 width, b [rows, width].
template <class T>
Tensor bias_gradient(const Tensor& a, const Tensor& b) {
  const std::int64_t rows = b.dim(0), width = b.dim(1), blocks = block_count(rows, kBiasRows);
  std::vector<double> sums(static_cast<std::size_t>(blocks * 3 * width));
  const T *pa = a.data<T>(), *pb = b.data<T>();
  parallel_for(rows, kBiasRows, [&](std::int64_t begin, std::int64_t end) {
    double* out = sums.data() + begin / kBiasRows * 3 * width;
    kernels::add_column_sums(out, pa + begin * 3 * width, end - begin, 2 * width, 3 * width);
    kernels::add_column_sums(out + 2 * width, pb + begin * width, end - begin, width, width);
  });
  Tensor gradient({3 * width}, b.dtype());
  kernels::fold_blocks(gradient.mutable_data<T>(), sums.data(), blocks, 3 * width);
  return gradient;
}

struct GruRule {
  static constexpr std::string_view name = "gru";
  Offsets offsets;
  std::int64_t width;
  bool linear_before_reset;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  Saved saved, output, weight, initial;

  template <class T>
  kernels::GruPlan<T> plan() const {
    return {offsets.bounds(), width, weight.get().data<T>(), initial.kept() ? initial.get().data<T>() : nullptr};
  }

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      const std::int64_t rows = gy.dim(0);
      // Of the hidden products this is the gradient too, but for gate n.
      Tensor gx({rows, 3 * width}, gy.dtype()), gh({rows, width}, gy.dtype()), gi;
      if (g.needs(3)) gi = Tensor::zeros(initial.get().shape(), gy.dtype());
      const kernels::GruBackward<T> data{.gradient_output = gy.data<T>(),
                                         .output = output.get().data<T>(),
                                         .saved = saved.get().data<T>(),
                                         .gradient_products = gx.mutable_data<T>(),
                                         .gradient_hidden = gh.mutable_data<T>(),
                                         .gradient_initial = g.needs(3) ? gi.mutable_data<T>() : nullptr};
      if (linear_before_reset) {
        kernels::gru_backward(plan<T>(), data);
      } else {
        kernels::gru_reset_first_backward(plan<T>(), data);
      }
      if (g.needs(1)) g.give(1, weight_gradient<T>(gx, gh));
      if (g.needs(2)) g.give(2, bias_gradient<T>(gx, gh));
      if (g.needs(3)) g.give(3, std::move(gi));
      if (g.needs(0)) g.give(0, std::move(gx));
    });
  }

 private:
  template <class T>
  Tensor weight_gradient(const Tensor& gx, const Tensor& gh) const {
    const std::int64_t rows = gh.dim(0);
    Tensor previous({rows, width}, gh.dtype()), gradient({3 * width, width}, gh.dtype());
    kernels::previous_rows(offsets.bounds(), width, plan<T>().initial, output.get().data<T>(),
                           previous.mutable_data<T>());
    T* out = gradient.mutable_data<T>();
    kernels::products_of_rows(rows, 2 * width, width, gx.data<T>(), 3 * width, previous.data<T>(), width, out);
    // What gate n's weights met: the state before, or what gate r left of it.
    const T* met = linear_before_reset ? previous.data<T>() : saved.get().data<T>() + 3 * width;
    const std::int64_t stride = linear_before_reset ? width : kernels::kGruSaved * width;
    kernels::products_of_rows(rows, width, width, gh.data<T>(), width, met, stride, out + 2 * width * width);
    return gradient;
  }
};

std::vector<Tensor> sample_inputs(const std::vector<std::int64_t>& lengths, std::int64_t width, bool bias, bool initial,
                                  std::uint64_t stream, double deviation = 1) {
  const std::int64_t rows = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  const auto count = static_cast<std::int64_t>(lengths.size());
  return {sample_normal({rows, 3 * width}, stream, deviation), sample_normal({3 * width, width}, stream + 1, 0.5),
          bias ? sample_normal({3 * width}, stream + 2) : Tensor(),
          initial ? sample_normal({count, width}, stream + 3) : Tensor(), Offsets::from_lengths(lengths).tensor()};
}

std::vector<OpSample> samples() {
  std::vector<OpSample> all;
  all.push_back({"odd", sample_inputs({3, 0, 1, 5}, 3, true, true, 1)});
  all.push_back({"no bias", sample_inputs({2, 4}, 5, false, true, 5)});
  all.push_back({"no initial state", sample_inputs({2, 0, 4}, 2, true, false, 9)});
  all.push_back({"one", sample_inputs({1}, 1, false, false, 13)});
  all.push_back({"no sequence", sample_inputs({}, 2, true, true, 17)});
  all.push_back({"empty sequences", sample_inputs({0, 0}, 2, true, true, 21)});
  // Tiles of rows and vectors of columns with and without a rest; more sequences than walk together.
  all.push_back({"wide", sample_inputs({3, 2, 2}, 9, true, true, 25)});
  all.push_back(
      {"many sequences", sample_inputs({1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3}, 2, true, true, 29)});
  all.push_back({"long", sample_inputs({60}, 2, true, false, 33)});
  all.push_back({"blocks of rows", sample_inputs({150, 110}, 1, true, true, 61)});
  all.push_back({"several vectors", sample_inputs({2, 1, 3, 2, 1}, 37, true, true, 37)});
  all.push_back({"whole vectors", sample_inputs({2, 1}, 32, true, true, 57)});
  all.push_back({"above every vector", sample_inputs({2, 1}, 67, true, true, 53)});
  // Gates that are 0 or 1 to the last bit.
  OpSample extreme{"extreme", sample_inputs({6, 2}, 4, true, true, 41, 200)};
  extreme.gradient = false;
  all.push_back(std::move(extreme));
  // The other form, in the same shapes.
  const std::size_t count = all.size();
  for (std::size_t i = 0; i < count; ++i) {
    OpSample first = all[i];
    first.name += ", reset first";
    first.options = {{"linear_before_reset", false}};
    // Weights that leave the gates of a wide state some slope.
    first.inputs[1] = first.inputs[1].clone();
    for (double& weight : first.inputs[1].mutable_span<double>()) weight *= 0.3;
    all.push_back(std::move(first));
  }
  return all;
}

}  // namespace

Var gru(const Var& products, const Var& weight, const Var& bias, const Var& initial, const Offsets& offsets,
        const GruOptions& options) {
  const DType dtype = products.dtype();
  const auto fits = [&](const Var& x) { return !x.defined() || x.dtype() == dtype; };
  check<DTypeError>(is_floating(dtype) && weight.dtype() == dtype && fits(bias) && fits(initial), "gru",
                    "needs inputs of one floating type; got products ", dtype, " and weight ", weight.dtype(),
                    bias.defined() ? detail::join(", bias ", bias.dtype()) : "",
                    initial.defined() ? detail::join(", initial ", initial.dtype()) : "");
  const std::int64_t width = weight.rank() == 2 ? weight.dim(1) : 0;
  const bool matches = width > 0 && weight.dim(0) == 3 * width && products.rank() == 2 &&
                       products.dim(1) == 3 * width && (!bias.defined() || bias.shape() == Shape{3 * width}) &&
                       (!initial.defined() || initial.shape() == Shape{offsets.count(), width});
  check<ShapeError>(
      matches, "gru",
      "needs products [T, 3 H], weight [3 H, H], bias [3 H] or none and initial [N, H] or none; got "
      "products ",
      products.shape(), ", weight ", weight.shape(), bias.defined() ? detail::join(", bias ", bias.shape()) : "",
      initial.defined() ? detail::join(", initial ", initial.shape()) : "", " and ", offsets.count(), " sequences");
  const std::int64_t rows = products.dim(0);
  offsets.check_rows(rows, "gru");
  const bool differentiated = recording(products, weight, bias, initial);
  const Tensor x = products.value().contiguous(), w = weight.value().contiguous();
  const Tensor first = initial.defined() ? initial.value().contiguous() : Tensor();
  Tensor output({rows, width}, dtype), saved;
  if (differentiated) saved = Tensor({rows, kernels::kGruSaved * width}, dtype);
  dispatch_floating(dtype, "gru", [&]<class T>(T) {
    const Tensor b = bias.defined() ? bias.value().contiguous() : Tensor();
    const kernels::GruPlan<T> plan{offsets.bounds(), width, w.data<T>(), first.defined() ? first.data<T>() : nullptr};
    const T* biases = b.defined() ? b.data<T>() : nullptr;
    T* kept = differentiated ? saved.mutable_data<T>() : nullptr;
    if (options.linear_before_reset) {
      kernels::gru_forward(plan, x.data<T>(), biases, output.mutable_data<T>(), kept);
    } else {
      kernels::gru_reset_first_forward(plan, x.data<T>(), biases, output.mutable_data<T>(), kept);
    }
  });
  GruRule rule{offsets,
               width,
               options.linear_before_reset,
               Saved(offsets.tensor()),
               Saved(saved, differentiated),
               Saved(output, differentiated),
               Saved(w),
               Saved(first, first.defined())};
  return record(std::move(rule), {&products, &weight, &bias, &initial}, std::move(output));
}

void entries::add_gru(Catalog& catalog) {
  catalog.add({
      .name = "gru",
      .summary = "Gated recurrent unit over packed sequences, from input products and hidden weights.",
      .inputs = {{"products", "[T, 3 H]"},
                 {"weight", "[3 H, H]"},
                 {.name = "bias", .shape = "[3 H]", .optional = true},
                 {.name = "initial", .shape = "[N, H]", .optional = true},
                 {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each sequence begins, and T"}},
      .options = {{"linear_before_reset", true, "gate r multiplies the state's product; false: the state itself"}},
      .outputs = {{"states", "[T, H]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {gru(in[0], in[1], in[2], in[3], Offsets(in[4].value()),
                    {.linear_before_reset = options.flag("linear_before_reset", true)})};
      },
      .samples = samples,
      .errors =
          [] {
            const auto replaced = [](std::size_t input, Tensor tensor) {
              std::vector<Tensor> inputs = sample_inputs({2, 3}, 2, true, true, 1);
              inputs[input] = std::move(tensor);
              return inputs;
            };
            return std::vector<OpError>{
                {"products", replaced(0, sample_normal({5, 4}, 1)), {}, "products [T, 3 H]"},
                {"weight", replaced(1, sample_normal({6, 3}, 1)), {}, "weight [6, 3]"},
                {"bias", replaced(2, sample_normal({2}, 1)), {}, "bias [2]"},
                {"initial", replaced(3, sample_normal({3, 2}, 1)), {}, "initial [3, 2] and 2 sequences"},
                {"no width", sample_inputs({2, 3}, 0, true, true, 1), {}, "products [5, 0], weight [0, 0]"},
                {"types", replaced(1, sample_normal({6, 2}, 1).to(DType::f32)), {}, "one floating type"},
                {"offsets", replaced(4, Offsets::single(6).tensor()), {}, "initial [2, 2] and 1 sequences"},
                {"rows", replaced(4, Tensor::from<std::int64_t>({0, 2, 6}, {3})), {}, "number of rows 5; got 6"},
            };
          },
      .large =
          [] {
            return OpSample{"large", sample_inputs(std::vector<std::int64_t>(16, 128), 64, true, false, 1)};
          },
      .flops =
          [](const OpSample& sample) {
            return 2.0 * static_cast<double>(sample.inputs[0].dim(0)) * static_cast<double>(sample.inputs[1].numel());
          },
      .variations =
          [] {
            const std::vector<std::pair<std::string, std::vector<OptionValue>>> both{{"linear_before_reset", {false}}};
            return std::vector<OpVariations>{{{"states", sample_inputs({3, 0, 1, 4}, 3, true, true, 45)}, both},
                                             {{"wide states", sample_inputs({2, 3}, 17, true, true, 49)}, both}};
          },
  });
}

}  // namespace tally::ops
