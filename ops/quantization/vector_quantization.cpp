#include "tally/ops/quantization/vector_quantization.h"

#include "tally/autograd/tape.h"
#include "tally/ops/kernels/residual_quantization.h"
#include "tally/ops/quantization/codes.h"

namespace tally::ops {
namespace {

constexpr const char* kName = "vector_quantization";

/// The tensors of a call, contiguous.
struct Inputs {
  Tensor x, codebooks, projected, products, bias, first_equal = {};
};

template <class T>
kernels::QuantizationPlan<T> plan_for(const Inputs& in, const VectorQuantizationOptions& options) {
  const Shape& shape = in.codebooks.shape();
  return {.rows = in.x.dim(0),
          .books = shape[0],
          .words = shape[1],
          .width = shape[2],
          .group_books = detail::books_together(shape, options),
          .soft = options.assignment == CodewordAssignment::soft,
          .inverse_temperature = static_cast<T>(1 / options.temperature),
          .row_stride = shape[2],
          .code_stride = shape[0],
          .logit_stride = shape[0] * shape[1],
          .x = in.x.data<T>(),
          .codebooks = in.codebooks.data<T>(),
          .projected = in.projected.data<T>(),
          .products = in.products.defined() ? in.products.data<T>() : nullptr,
          .bias = in.bias.defined() ? in.bias.data<T>() : nullptr};
}

struct VectorQuantizationRule {
  static constexpr std::string_view name = kName;
  VectorQuantizationOptions options;
  bool has_products, has_bias;
  Saved x, codebooks, projected, products, bias, logits, codes;

  void backward(BackwardContext& g) const {
    const Inputs in{x.get(), codebooks.get(), projected.get(), has_products ? products.get() : Tensor(),
                    has_bias ? bias.get() : Tensor()};
    dispatch_floating(in.x.dtype(), kName, [&]<class T>(T) {
      detail::dispatch_codes(codes.get().dtype(), kName, [&]<class Code>(Code) { backward_of<T, Code>(g, in); });
    });
  }

 private:
  template <class T, class Code>
  void backward_of(BackwardContext& g, const Inputs& in) const {
    const auto zeros = [&](int input, const Tensor& like) {
      return g.needs(input) && like.defined() ? Tensor::zeros(like.shape(), like.dtype()) : Tensor();
    };
    Tensor gx = g.needs(0) ? Tensor(in.x.shape(), in.x.dtype()) : Tensor();
    Tensor gc = zeros(1, in.codebooks), gk = zeros(2, in.projected), gi = zeros(3, in.products), gb = zeros(4, in.bias);
    const auto writable = [](Tensor& tensor) { return tensor.defined() ? tensor.mutable_data<T>() : nullptr; };
    const int logits_at = options.reconstruct ? 1 : 0;
    const auto readable = [&](int k) { return g.has_cotangent(k) ? g.cotangent(k).data<T>() : nullptr; };
    kernels::quantize_backward(
        plan_for<T>(in, options),
        kernels::QuantizationBackward<T, Code>{.logits = logits.get().data<T>(),
                                               .codes = codes.get().data<Code>(),
                                               .gradient_reconstruction = options.reconstruct ? readable(0) : nullptr,
                                               .gradient_logits = readable(logits_at),
                                               .x = writable(gx),
                                               .codebooks = writable(gc),
                                               .projected = writable(gk),
                                               .products = writable(gi),
                                               .bias = writable(gb)});
    Tensor* const gradients[] = {&gx, &gc, &gk, &gi, &gb};
    for (int i = 0; i < 5; ++i) {
      if (gradients[i]->defined()) g.give(i, std::move(*gradients[i]));
    }
  }
};

void check_call(const Tensor& x, const VectorQuantizationTables& tables, const VectorQuantizationOptions& options) {
  const Tensor& c = tables.codebooks.value();
  check<ShapeError>(c.defined() && c.rank() == 3 && c.dim(0) > 0 && c.dim(1) > 0, kName,
                    "needs codebooks [B, W, D] with B and W of at least 1; got ", c.shape());
  check<ShapeError>(x.rank() == 2 && x.dim(1) == c.dim(2), kName, "needs x [T, D] and codebooks [B, W, D]; got x ",
                    x.shape(), " and codebooks ", c.shape());
  const std::int64_t columns = c.dim(0) * c.dim(1);
  check<ShapeError>(tables.projected.shape() == Shape({columns, c.dim(2)}), kName, "needs projected codewords ",
                    Shape({columns, c.dim(2)}), "; got ", tables.projected.shape());
  const Shape products = detail::products_shape(c.shape(), options);
  check<ShapeError>(products.numel() == 0 || tables.products.shape() == products, kName, "needs inner products ",
                    products, " for residual passes; got ", tables.products.shape());
  check<ShapeError>(tables.bias.numel() == 0 || tables.bias.shape() == Shape({columns}), kName, "needs a bias [",
                    columns, "] or [0]; got ", tables.bias.shape());
  for (const Tensor& tensor : {c, tables.projected.value(), tables.products.value(), tables.bias.value()}) {
    check<DTypeError>(is_floating(x.dtype()) && tensor.dtype() == x.dtype(), kName,
                      "needs x and codebooks of equal floating types; got ", x.dtype(), " and ", tensor.dtype());
  }
  detail::check_temperature(kName, options.temperature);
  check<ValueError>(all_finite(tables.bias.value()), kName, "needs finite biases of codewords");
  check<ShapeError>(!tables.first_equal.defined() || tables.first_equal.shape() == Shape({columns}), kName,
                    "needs the lowest of equal codewords [", columns, "]; got ", tables.first_equal.shape());
}

Inputs inputs_of(const Tensor& x, const VectorQuantizationTables& tables, const VectorQuantizationOptions& options) {
  check_call(x, tables, options);
  const bool has_products = detail::products_shape(tables.codebooks.shape(), options).numel() > 0;
  const bool has_bias = tables.bias.numel() > 0;
  return {x.contiguous(),
          tables.codebooks.value().contiguous(),
          tables.projected.value().contiguous(),
          has_products ? tables.products.value().contiguous() : Tensor(),
          has_bias ? tables.bias.value().contiguous() : Tensor(),
          tables.first_equal};
}

/// Runs the kernel; `logits` and `reconstruction` may be undefined.
Tensor run(const Inputs& in, const VectorQuantizationOptions& options, Tensor& logits, Tensor& reconstruction) {
  Tensor codes({in.x.dim(0), in.codebooks.dim(0)}, detail::codes_dtype(in.codebooks.dim(1)));
  std::int64_t bad = -1;
  dispatch_floating(in.x.dtype(), kName, [&]<class T>(T) {
    const auto writable = [](Tensor& tensor) { return tensor.defined() ? tensor.mutable_data<T>() : nullptr; };
    detail::dispatch_codes(codes.dtype(), kName, [&]<class Code>(Code) {
      bad = kernels::quantize(plan_for<T>(in, options), codes.mutable_data<Code>(), writable(logits),
                              writable(reconstruction));
    });
  });
  check<ValueError>(bad < 0, kName, "needs finite rows; row ", bad, " of x is not");
  detail::take_first_of_equals(codes, in.first_equal, in.bias);
  return codes;
}

}  // namespace

VectorQuantization vector_quantization(const Var& x, const VectorQuantizationTables& tables,
                                       const VectorQuantizationOptions& options) {
  const Inputs in = inputs_of(x.value(), tables, options);
  const Shape& shape = in.codebooks.shape();
  Tensor logits({x.dim(0), shape[0], shape[1]}, x.dtype()), reconstruction;
  if (options.reconstruct) reconstruction = Tensor(in.x.shape(), x.dtype());
  const Tensor codes = run(in, options, logits, reconstruction);
  VectorQuantizationRule rule{options,
                              in.products.defined(),
                              in.bias.defined(),
                              Saved(in.x),
                              Saved(in.codebooks),
                              Saved(in.projected),
                              Saved(in.products),
                              Saved(in.bias),
                              Saved(logits),
                              Saved(codes)};
  const Var* inputs[] = {&x, &tables.codebooks, &tables.projected, &tables.products, &tables.bias};
  std::vector<Tensor> outputs;
  if (options.reconstruct) outputs.push_back(std::move(reconstruction));
  outputs.push_back(std::move(logits));
  std::vector<Var> made = record(std::move(rule), inputs, std::move(outputs));
  return {options.reconstruct ? std::move(made[0]) : Var(), std::move(made.back()), codes};
}

VectorQuantization vector_quantization(const Var& x, const Var& codebooks, const Var& bilinear,
                                       const VectorQuantizationOptions& options) {
  return vector_quantization(x, vector_quantization_tables(codebooks, bilinear, options), options);
}

Tensor encode_codes(const Tensor& x, const VectorQuantizationTables& tables, const VectorQuantizationOptions& options) {
  check<ValueError>(options.assignment == CodewordAssignment::hard, kName,
                    "needs hard assignment to encode codes alone");
  const Inputs in = inputs_of(x, tables, options);
  Tensor none;
  return run(in, options, none, none);
}

}  // namespace tally::ops
