#include "tally/ops/quantization/product_quantization.h"

#include <algorithm>

#include "tally/autograd/tape.h"
#include "tally/ops/kernels/residual_quantization.h"
#include "tally/ops/quantization/codes.h"

namespace tally::ops {
namespace {

constexpr const char* kName = "product_quantization";

struct Inputs {
  Tensor x, codebooks, projected, bias;  // bias may be empty
};

/// One part as a quantization of its own, with one codebook.
template <class T>
kernels::QuantizationPlan<T> part_plan(const Inputs& in, const ProductQuantizationOptions& options, std::int64_t book) {
  const Shape& shape = in.codebooks.shape();
  const std::int64_t words = shape[1], width = shape[2];
  return {.rows = in.x.dim(0),
          .books = 1,
          .words = words,
          .width = width,
          .group_books = 1,
          .soft = options.assignment == CodewordAssignment::soft,
          .inverse_temperature = static_cast<T>(1 / options.temperature),
          .row_stride = in.x.dim(1),
          .code_stride = shape[0],
          .logit_stride = shape[0] * words,
          .x = in.x.data<T>() + book * width,
          .codebooks = in.codebooks.data<T>() + book * words * width,
          .projected = in.projected.data<T>() + book * words * width,
          .bias = in.bias.numel() > 0 ? in.bias.data<T>() + book * words : nullptr};
}

struct ProductQuantizationRule {
  static constexpr std::string_view name = kName;
  ProductQuantizationOptions options;
  Saved x, codebooks, projected, bias, logits, codes;

  void backward(BackwardContext& g) const {
    const Inputs in{x.get(), codebooks.get(), projected.get(), bias.get()};
    dispatch_floating(in.x.dtype(), kName, [&]<class T>(T) {
      detail::dispatch_codes(codes.get().dtype(), kName, [&]<class Code>(Code) { backward_of<T, Code>(g, in); });
    });
  }

 private:
  template <class T, class Code>
  void backward_of(BackwardContext& g, const Inputs& in) const {
    const std::int64_t books = in.codebooks.dim(0), words = in.codebooks.dim(1), width = in.codebooks.dim(2);
    const auto zeros = [&](int input, const Tensor& like) {
      return g.needs(input) && like.numel() > 0 ? Tensor::zeros(like.shape(), like.dtype()) : Tensor();
    };
    Tensor gx = zeros(0, in.x), gc = zeros(1, in.codebooks), gk = zeros(2, in.projected), gb = zeros(3, in.bias);
    Tensor* const gradients[] = {&gx, &gc, &gk, &gb};
    const auto readable = [&](int k) { return g.has_cotangent(k) ? g.cotangent(k).data<T>() : nullptr; };
    const T *rows = readable(0), *direct = readable(1);
    for (std::int64_t book = 0; book < books; ++book) {
      const auto part = [&](Tensor& tensor, std::int64_t step) {
        return tensor.defined() ? tensor.mutable_data<T>() + book * step : nullptr;
      };
      kernels::quantize_backward(part_plan<T>(in, options, book),
                                 kernels::QuantizationBackward<T, Code>{
                                     .logits = logits.get().data<T>() + book * words,
                                     .codes = codes.get().data<Code>() + book,
                                     .gradient_reconstruction = rows == nullptr ? nullptr : rows + book * width,
                                     .gradient_logits = direct == nullptr ? nullptr : direct + book * words,
                                     .x = part(gx, width),
                                     .codebooks = part(gc, words * width),
                                     .projected = part(gk, words * width),
                                     .bias = part(gb, words)});
    }
    for (int i = 0; i < 4; ++i) {
      if (gradients[i]->defined()) g.give(i, std::move(*gradients[i]));
    }
  }
};

}  // namespace

VectorQuantization product_quantization(const Var& x, const Var& codebooks, const ProductQuantizationOptions& options) {
  const Shape& shape = codebooks.shape();
  check<ShapeError>(shape.rank() == 3 && shape[0] > 0 && shape[1] > 0, kName,
                    "needs codebooks [B, W, D] with B and W of at least 1; got ", shape);
  check<ShapeError>(x.rank() == 2 && x.dim(1) == shape[0] * shape[2], kName,
                    "needs x [T, B * D] for codebooks [B, W, D]; got x ", x.shape(), " and codebooks ", shape);
  check<DTypeError>(is_floating(x.dtype()) && codebooks.dtype() == x.dtype(), kName,
                    "needs x and codebooks of equal floating types; got ", x.dtype(), " and ", codebooks.dtype());
  check<ValueError>(options.similarity != CodewordSimilarity::bilinear, kName,
                    "needs similarity dot or squared_distance; got bilinear");
  detail::check_temperature(kName, options.temperature);
  const VectorQuantizationTables tables =
      vector_quantization_tables(codebooks, {}, {.similarity = options.similarity, .residual = false});
  const Inputs in{x.value().contiguous(), codebooks.value().contiguous(), tables.projected.value(),
                  tables.bias.value()};
  const std::int64_t rows = x.dim(0), books = shape[0], words = shape[1], width = shape[2];
  Tensor codes({rows, books}, detail::codes_dtype(words));
  Tensor logits({rows, books, words}, x.dtype()), reconstruction(in.x.shape(), x.dtype());
  dispatch_floating(x.dtype(), kName, [&]<class T>(T) {
    const std::int64_t bad = kernels::first_row_not_finite(in.x.data<T>(), rows, books * width, books * width);
    check<ValueError>(bad < 0, kName, "needs finite rows; row ", bad, " of x is not");
    T *to_logits = logits.mutable_data<T>(), *to_rows = reconstruction.mutable_data<T>();
    detail::dispatch_codes(codes.dtype(), kName, [&]<class Code>(Code) {
      Code* to_codes = codes.mutable_data<Code>();
      for (std::int64_t book = 0; book < books; ++book) {
        kernels::quantize(part_plan<T>(in, options, book), to_codes + book, to_logits + book * words,
                          to_rows + book * width);
      }
    });
  });
  detail::take_first_of_equals(codes, tables.first_equal, in.bias);
  ProductQuantizationRule rule{options,        Saved(in.x),   Saved(in.codebooks), Saved(in.projected),
                               Saved(in.bias), Saved(logits), Saved(codes)};
  const Var* inputs[] = {&x, &codebooks, &tables.projected, &tables.bias};
  std::vector<Tensor> outputs{std::move(reconstruction), std::move(logits)};
  std::vector<Var> made = record(std::move(rule), inputs, std::move(outputs));
  return {std::move(made[0]), std::move(made[1]), codes};
}

}  // namespace tally::ops
