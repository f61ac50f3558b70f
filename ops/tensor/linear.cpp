#include "tally/ops/tensor/linear.h"

#include <algorithm>
#include <optional>

#include "tally/autograd/tape.h"
#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/core/right_operand.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/columns.h"
#include "tally/ops/kernels/elementwise.h"
#include "tally/ops/kernels/relu_signs.h"

namespace tally::ops {
namespace {

using blas::Transpose;
using kernels::UnaryOp;

/// The function of the elementwise family; none for Activation::none.
std::optional<UnaryOp> function_of(Activation activation) {
  switch (activation) {
    case Activation::none:
      break;
    case Activation::relu:
      return UnaryOp::relu;
    case Activation::gelu:
      return UnaryOp::gelu;
    case Activation::silu:
      return UnaryOp::silu;
    case Activation::tanh:
      return UnaryOp::tanh;
    case Activation::sigmoid:
      return UnaryOp::sigmoid;
  }
  return std::nullopt;
}

/// What is kept of the outputs for the slope.
enum class Kept : std::uint8_t { nothing, signs, before, after };
Kept kept_for(Activation activation) {
  if (activation == Activation::none) return Kept::nothing;
  if (activation == Activation::relu) return Kept::signs;
  return kernels::derivative_of(*function_of(activation)) == kernels::DerivativeOf::input ? Kept::before : Kept::after;
}

// Tiles of the product: about 256 KiB in f32, so that bias and activation find them in the core's cache.
constexpr std::int64_t kTileElements = 1 << 16;
constexpr std::int64_t kTileColumns = 1024;  // a multiple of 8: tiles share no byte of signs
std::int64_t tile_rows(std::int64_t columns) {
  return std::clamp(kTileElements / std::max<std::int64_t>(std::min(columns, kTileColumns), 1), std::int64_t{64},
                    std::int64_t{256});
}

std::int64_t sign_bytes(std::int64_t columns) { return (columns + 7) / 8; }

/// z = x W^T + b and y = activation(z); y is z when the sums need not be kept. `signs` (of relu) may be null.
template <class T>
void forward_tiles(Activation activation, const Tensor& x, const Tensor& weight, const T* bias, T* z, T* y,
                   std::uint8_t* signs) {
  const std::int64_t in = weight.dim(1), out = weight.dim(0), rows = x.dim(0);
  const T *px = x.data<T>(), *pw = weight.data<T>();
  const std::optional<UnaryOp> function = function_of(activation);
  const std::int64_t height = tile_rows(out), across = block_count(out, kTileColumns);
  const blas::RightOperand<T> weights(Transpose::yes, in, out, pw, in, std::min(height, rows));
  parallel_for(block_count(rows, height) * across, 1, [&](std::int64_t tile, std::int64_t) {
    const std::int64_t row = tile / across * height, column = tile % across * kTileColumns;
    const std::int64_t m = std::min(height, rows - row), n = std::min(kTileColumns, out - column);
    T* tile_z = z + row * out + column;
    weights.multiply_columns(column, n, Transpose::no, m, T{1}, px + row * in, in, T{0}, tile_z, out,
                             bias == nullptr ? nullptr : bias + column);
    if (signs == nullptr && !function) return;
    for (std::int64_t i = 0; i < m; ++i) {
      T* row_z = tile_z + i * out;
      T* row_y = y + (row + i) * out + column;
      if (signs != nullptr) {
        kernels::relu_with_signs(row_y, signs + (row + i) * sign_bytes(out) + column / 8, n);
      } else if (function) {
        kernels::unary(*function, row_z, row_y, n);
      }
    }
  });
}

struct LinearRule {
  static constexpr std::string_view name = "linear";
  Activation activation;
  Shape x_shape;
  Saved x, weight;  // x as rows [T, in]
  Saved kept;       // what kept_for(activation) says, [T, out] or its signs [T, bytes]

  void backward(BackwardContext& g) const {
    const std::int64_t in = x_shape[-1], out = g.cotangent().dim(-1), rows = x_shape.without(-1).numel();
    Tensor gz = activation == Activation::none ? g.cotangent() : g.take_cotangent();
    dispatch_floating(gz.dtype(), name, [&]<class T>(T) { backward_tiles<T>(g, gz, rows, in, out); });
  }

 private:
  /// Slope, bias gradient and x gradient of a tile of rows while it is in cache; then the weight's gradient.
  template <class T>
  void backward_tiles(BackwardContext& g, Tensor& gz, std::int64_t rows, std::int64_t in, std::int64_t out) const {
    const Kept what = kept_for(activation);
    const std::uint8_t* signs = what == Kept::signs ? kept.get().data<std::uint8_t>() : nullptr;
    const T* values = what == Kept::before || what == Kept::after ? kept.get().data<T>() : nullptr;
    T* writable = what == Kept::nothing ? nullptr : gz.mutable_data<T>();
    const T* pz = gz.data<T>();
    Tensor gx(g.needs(0) ? x_shape : Shape{0}, gz.dtype());
    T* px = g.needs(0) ? gx.mutable_data<T>() : nullptr;
    const T* pw = g.needs(0) ? weight.get().data<T>() : nullptr;
    const std::int64_t height = tile_rows(out), tiles = block_count(rows, height);
    std::vector<double> sums(g.needs(2) ? static_cast<std::size_t>(tiles * out) : 0);
    parallel_for(rows, height, [&](std::int64_t begin, std::int64_t end) {
      if (signs != nullptr) {
        for (std::int64_t row = begin; row < end; ++row) {
          kernels::keep_signed(writable + row * out, signs + row * sign_bytes(out), out);
        }
      }
      if (values != nullptr) {
        T* tile = writable + begin * out;
        kernels::unary_backward(*function_of(activation), tile, values + begin * out, tile, (end - begin) * out);
      }
      if (!sums.empty()) {
        kernels::add_column_sums(sums.data() + begin / height * out, pz + begin * out, end - begin, out, out);
      }
      if (px != nullptr) {
        blas::gemm(Transpose::no, Transpose::no, end - begin, in, out, T{1}, pz + begin * out, out, pw, in, T{0},
                   px + begin * in, in);
      }
    });
    if (g.needs(0)) g.give(0, std::move(gx));
    if (g.needs(1)) {
      Tensor gw({out, in}, gz.dtype());
      blas::parallel_gemm(Transpose::yes, Transpose::no, out, in, rows, T{1}, pz, out, x.get().data<T>(), in, T{0},
                          gw.mutable_data<T>(), in);
      g.give(1, std::move(gw));
    }
    if (g.needs(2)) {
      Tensor gb({out}, gz.dtype());
      kernels::fold_blocks(gb.mutable_data<T>(), sums.data(), tiles, out);
      g.give(2, std::move(gb));
    }
  }
};

}  // namespace

Var linear(const Var& x, const Var& weight, const Var& bias, const LinearOptions& options) {
  const Shape &sx = x.shape(), &sw = weight.shape();
  check<DTypeError>(
      is_floating(x.dtype()) && weight.dtype() == x.dtype() && (!bias.defined() || bias.dtype() == x.dtype()), "linear",
      "needs equal floating types; got x ", x.dtype(), " and weight ", weight.dtype(),
      bias.defined() ? detail::join(" and bias ", bias.dtype()) : "");
  check<ShapeError>(
      sx.rank() >= 1 && sw.rank() == 2 && sw[1] == sx[-1] && (!bias.defined() || bias.shape() == Shape{sw[0]}),
      "linear", "needs x [..., in], weight [out, in] and bias [out] or none; got x ", sx, " and weight ", sw,
      bias.defined() ? detail::join(" and bias ", bias.shape()) : "");
  const std::int64_t in = sw[1], out = sw[0], rows = sx.without(-1).numel();
  const Tensor x_rows = x.value().reshape({rows, in}), w = weight.value().contiguous();
  Shape shape = sx;
  shape.set(-1, out);
  const bool differentiated = recording(x, weight, bias);
  const Kept what = differentiated ? kept_for(options.activation) : Kept::nothing;
  Tensor y(shape, x.dtype()), kept;
  if (what == Kept::signs) kept = Tensor({rows, sign_bytes(out)}, DType::u8);
  if (what == Kept::before) kept = Tensor({rows, out}, x.dtype());
  dispatch_floating(x.dtype(), "linear", [&]<class T>(T) {
    T* py = y.mutable_data<T>();
    forward_tiles<T>(options.activation, x_rows, w, bias.defined() ? bias.value().contiguous().data<T>() : nullptr,
                     what == Kept::before ? kept.mutable_data<T>() : py, py,
                     what == Kept::signs ? kept.mutable_data<std::uint8_t>() : nullptr);
  });
  if (what == Kept::after) kept = y;
  LinearRule rule{options.activation, sx, Saved(x_rows, weight.tracked()), Saved(w, x.tracked()),
                  Saved(kept, what != Kept::nothing)};
  return record(std::move(rule), {&x, &weight, &bias}, std::move(y));
}

void entries::add_linear(Catalog& catalog) {
  catalog.add({
      .name = "linear",
      .summary = "activation(x W^T + b) with bias and activation fused into the product.",
      .inputs = {{"x", "[..., in]"}, {"weight", "[out, in]"}, {.name = "bias", .shape = "[out]", .optional = true}},
      .options = {{"activation", std::string("none"), "none, relu, gelu (erf), silu, tanh or sigmoid"}},
      .outputs = {{"y", "[..., out]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {linear(in[0], in[1], in[2], {activation_named(options.text("activation", "none"))})};
      },
      .samples =
          [] {
            std::vector<OpSample> samples;
            const auto inputs = [](const Shape& x, std::int64_t out, bool bias,
                                   double size = 1) -> std::vector<Tensor> {
              return {sample_normal(x, 1, size), sample_normal({out, x[-1]}, 2),
                      bias ? sample_normal({out}, 3) : Tensor()};
            };
            for (const char* activation : {"none", "relu", "gelu", "silu", "tanh", "sigmoid"}) {
              const OpOptions options{{"activation", std::string(activation)}};
              samples.push_back({"odd", inputs({3, 5}, 7, true), options});
              samples.push_back({"one", inputs({1}, 1, true), options});
              samples.push_back({"wide", inputs({3, 66}, 67, true), options});
              samples.push_back({"batch, no bias", inputs({2, 3, 4}, 19, false), options});
              samples.push_back({"no rows", inputs({0, 3}, 2, true), options});
              samples.push_back({"extreme", inputs({4, 3}, 9, true, 300), options, false});
            }
            samples.push_back({"at kinks",
                               {Tensor::zeros({2, 3}, DType::f64), sample_normal({1, 3}, 2), {}},
                               {{"activation", std::string("relu")}},
                               true,
                               true});
            samples.push_back({"no inputs", inputs({3, 0}, 2, true)});
            samples.push_back({"no outputs", inputs({3, 2}, 0, true)});
            samples.push_back({"many rows", inputs({600, 3}, 2, true), {{"activation", std::string("relu")}}});
            return samples;
          },
      .errors =
          [] {
            const auto t = [](const Shape& shape) { return sample_normal(shape, 1); };
            return std::vector<OpError>{
                {"inner sizes", {t({2, 3}), t({4, 2}), {}}, {}, "weight [out, in]"},
                {"bias", {t({2, 3}), t({4, 3}), t({3})}, {}, "and bias [3]"},
                {"types", {t({2, 3}), t({4, 3}).to(DType::f32), {}}, {}, "equal floating types"},
                {"activation", {t({2, 3}), t({4, 3}), {}}, {{"activation", std::string("selu")}}, "got 'selu'"},
            };
          },
      .large =
          [] {
            return OpSample{
                "large",
                {sample_normal({2048, 256}, 1), sample_normal({1024, 256}, 2, 0.06), sample_normal({1024}, 3)},
                {{"activation", std::string("gelu")}}};
          },
      .flops =
          [](const OpSample& sample) {
            return 2.0 * static_cast<double>(sample.inputs[0].numel()) * static_cast<double>(sample.inputs[1].dim(0));
          },
      .kinks = true,
      .variations =
          [] {
            const std::vector<OptionValue> activations{std::string("relu"), std::string("gelu"), std::string("silu"),
                                                       std::string("tanh"), std::string("sigmoid")};
            return std::vector<OpVariations>{
                {{"pairs", {sample_normal({3, 5}, 11), sample_normal({17, 5}, 12), sample_normal({17}, 13)}},
                 {{"activation", activations}}}};
          },
  });
}

}  // namespace tally::ops
