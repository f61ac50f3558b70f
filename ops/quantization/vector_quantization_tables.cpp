#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/codewords.h"
#include "tally/ops/quantization/codes.h"
#include "tally/ops/quantization/vector_quantization.h"

namespace tally::ops {
namespace {

using blas::Transpose;

constexpr const char* kName = "vector_quantization_tables";

/// Sizes of codebooks [B, W, D].
struct Sizes {
  std::int64_t books, words, width;
  explicit Sizes(const Shape& shape) : books(shape[0]), words(shape[1]), width(shape[2]) {}
  std::int64_t columns() const { return books * words; }
};

/// Calls f(first, later, count, at) for every codebook that is not the last of its group: its first codeword, the
/// `count` codewords of later codebooks of its group from `later` on, and where their products stand in `products`,
/// whose rows are `stride` long.
template <class F>
void for_each_codebook(const Sizes& size, std::int64_t stride, F&& f) {
  for (std::int64_t group = 0; group < size.columns(); group += stride) {
    const std::int64_t end = std::min(group + stride, size.columns());
    for (std::int64_t first = group; first + size.words < end; first += size.words) {
      const std::int64_t later = first + size.words;
      f(first, later, end - later, first * stride + later - group);
    }
  }
}

/// products = C K^T for the columns of later codebooks of a group; the rest must be zero already.
template <class T>
void later_products(const Sizes& size, const T* codebooks, const T* projected, std::int64_t stride, T* products) {
  for_each_codebook(size, stride, [&](std::int64_t first, std::int64_t later, std::int64_t count, std::int64_t at) {
    blas::parallel_gemm(Transpose::no, Transpose::yes, size.words, count, size.width, T{1},
                        codebooks + first * size.width, size.width, projected + later * size.width, size.width, T{0},
                        products + at, stride);
  });
}

/// Adds to the gradients of C and K what comes through `products`.
template <class T>
void later_products_backward(const Sizes& size, const T* codebooks, const T* projected, const T* gradient,
                             std::int64_t stride, T* gradient_codebooks, T* gradient_projected) {
  const std::int64_t width = size.width;
  for_each_codebook(size, stride, [&](std::int64_t first, std::int64_t later, std::int64_t count, std::int64_t at) {
    const T* part = gradient + at;
    blas::parallel_gemm(Transpose::no, Transpose::no, size.words, width, count, T{1}, part, stride,
                        projected + later * width, width, T{1}, gradient_codebooks + first * width, width);
    blas::parallel_gemm(Transpose::yes, Transpose::no, count, width, size.words, T{1}, part, stride,
                        codebooks + first * width, width, T{1}, gradient_projected + later * width, width);
  });
}

template <class T>
void squared_norms(const Sizes& size, const T* codebooks, T* bias) {
  for (std::int64_t c = 0; c < size.columns(); ++c) {
    bias[c] = -static_cast<T>(kernels::sum_squares(codebooks + c * size.width, size.width));
  }
}

template <class T>
void squared_norms_backward(const Sizes& size, const T* codebooks, const T* gradient, T* gradient_codebooks) {
  for (std::int64_t c = 0; c < size.columns(); ++c) {
    kernels::axpy(gradient_codebooks + c * size.width, -2 * gradient[c], codebooks + c * size.width, size.width);
  }
}

struct TablesRule {
  static constexpr std::string_view name = kName;
  CodewordSimilarity similarity;
  std::int64_t product_stride;  // 0 without `products`
  Saved codebooks, bilinear, projected;

  void backward(BackwardContext& g) const {
    dispatch_floating(codebooks.get().dtype(), kName, [&]<class T>(T) { backward_of<T>(g); });
  }

 private:
  template <class T>
  void backward_of(BackwardContext& g) const {
    const Tensor& c = codebooks.get();
    const Sizes size(c.shape());
    const std::int64_t columns = size.columns(), width = size.width;
    const T* words = c.data<T>();
    Tensor gradient = Tensor::zeros(c.shape(), c.dtype()), gradient_projected = g.take_cotangent(0);
    T *out = gradient.mutable_data<T>(), *gk = gradient_projected.mutable_data<T>();
    if (product_stride > 0 && g.has_cotangent(1)) {
      later_products_backward(size, words, projected.get().data<T>(), g.cotangent(1).data<T>(), product_stride, out,
                              gk);
    }
    if (g.needs(0)) {
      add_through_projection(size, gk, out);
      if (similarity == CodewordSimilarity::squared_distance && g.has_cotangent(2)) {
        squared_norms_backward(size, words, g.cotangent(2).data<T>(), out);
      }
      g.give(0, std::move(gradient));
    }
    if (g.needs(1)) {
      Tensor gm({width, width}, c.dtype());
      blas::parallel_gemm(Transpose::yes, Transpose::no, width, width, columns, T{1}, gk, width, words, width, T{0},
                          gm.mutable_data<T>(), width);
      g.give(1, std::move(gm));
    }
  }

  /// What reaches the codewords from the gradient of K = C M^T, C or 2 C.
  template <class T>
  void add_through_projection(const Sizes& size, const T* gradient_projected, T* gradient) const {
    if (similarity == CodewordSimilarity::bilinear) {
      blas::parallel_gemm(Transpose::no, Transpose::no, size.columns(), size.width, size.width, T{1},
                          gradient_projected, size.width, bilinear.get().data<T>(), size.width, T{1}, gradient,
                          size.width);
    } else {
      const T factor = similarity == CodewordSimilarity::dot ? T{1} : T{2};
      kernels::axpy(gradient, factor, gradient_projected, size.columns() * size.width);
    }
  }
};

void check_tables(const Var& codebooks, const Var& bilinear, CodewordSimilarity similarity) {
  check<DTypeError>(is_floating(codebooks.dtype()), kName, "needs codebooks of f32 or f64; got ", codebooks.dtype());
  check<ShapeError>(codebooks.rank() == 3 && codebooks.dim(0) > 0 && codebooks.dim(1) > 0, kName,
                    "needs codebooks [B, W, D] with B and W of at least 1; got ", codebooks.shape());
  if (similarity != CodewordSimilarity::bilinear) {
    check<ValueError>(!bilinear.defined(), kName, "needs no bilinear matrix unless similarity is bilinear; got ",
                      bilinear.shape());
  } else {
    check<ValueError>(bilinear.defined(), kName, "needs a matrix for bilinear similarity; got none");
    const std::int64_t width = codebooks.dim(2);
    check<ShapeError>(bilinear.shape() == Shape({width, width}), kName,
                      "needs a bilinear matrix [D, D] = ", Shape({width, width}), "; got ", bilinear.shape());
    check<DTypeError>(bilinear.dtype() == codebooks.dtype(), kName, "needs a bilinear matrix of ", codebooks.dtype(),
                      "; got ", bilinear.dtype());
  }
}

template <class T>
void check_finite(const Sizes& size, const T* codebooks, const T* bilinear) {
  const std::int64_t bad = kernels::first_row_not_finite(codebooks, size.columns(), size.width, size.width);
  check<ValueError>(bad < 0, kName, "needs finite codewords; codeword ", bad % size.words, " of codebook ",
                    bad / size.words, " is not");
  if (bilinear == nullptr) return;
  const std::int64_t row = kernels::first_row_not_finite(bilinear, size.width, size.width, size.width);
  check<ValueError>(row < 0, kName, "needs a finite bilinear matrix; row ", row, " is not");
}

/// VectorQuantizationTables::first_equal.
template <class T>
Tensor first_of_equals(const Sizes& size, const T* codewords) {
  Tensor first({size.columns()}, DType::i32);
  auto* out = first.mutable_data<std::int32_t>();
  std::vector<std::int32_t> order(static_cast<std::size_t>(size.words));
  bool all_differ = true;
  for (std::int64_t book = 0; book < size.books; ++book, out += size.words, codewords += size.words * size.width) {
    const auto row = [&](std::int32_t word) {
      return std::span(codewords + word * size.width, static_cast<std::size_t>(size.width));
    };
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
      const auto one = row(a), other = row(b);
      const auto [x, y] = std::mismatch(one.begin(), one.end(), other.begin());
      return x == one.end() ? a < b : *x < *y;
    });
    std::int32_t lowest = order[0];
    for (const std::int32_t word : order) {
      if (!std::ranges::equal(row(word), row(lowest))) lowest = word;
      out[word] = lowest;
      all_differ = all_differ && word == lowest;
    }
  }
  return all_differ ? Tensor() : first;
}

}  // namespace

std::int64_t detail::books_together(const Shape& codebooks, const VectorQuantizationOptions& options) {
  // A group's inner products, 256 KiB in f32, fit the second cache, and its product is as fast as a larger one.
  constexpr std::int64_t kColumnsTogether = 256;
  check<ValueError>(options.books_together >= 0, kName,
                    "needs a number of codebooks that go together of at least 0; got ", options.books_together);
  if (!options.residual) return codebooks[0];
  const std::int64_t wanted =
      options.books_together > 0 ? options.books_together : std::max<std::int64_t>(kColumnsTogether / codebooks[1], 1);
  return std::min(wanted, codebooks[0]);
}

Shape detail::products_shape(const Shape& codebooks, const VectorQuantizationOptions& options) {
  const std::int64_t together = books_together(codebooks, options);
  if (!options.residual || together == 1) return {0, 0};
  return {codebooks[0] * codebooks[1], together * codebooks[1]};
}

void detail::take_first_of_equals(Tensor& codes, const Tensor& first_equal, const Tensor& bias) {
  if (!first_equal.defined()) return;
  const std::int64_t books = codes.dim(1), words = first_equal.numel() / books;
  const std::vector<double> biases = bias.defined() && bias.numel() > 0
                                         ? bias.to_doubles()
                                         : std::vector<double>(static_cast<std::size_t>(books * words));
  dispatch_codes(codes.dtype(), kName, [&]<class Code>(Code) {
    Code* code = codes.mutable_data<Code>();
    for (std::int64_t i = 0; i < codes.numel(); ++i) {
      const auto first = first_equal.span<std::int32_t>().subspan(static_cast<std::size_t>(i % books * words));
      const auto book = std::span(biases).subspan(static_cast<std::size_t>(i % books * words));
      const auto chosen = static_cast<std::size_t>(code[i]);
      auto word = static_cast<std::size_t>(first[chosen]);
      while (first[word] != first[chosen] || book[word] != book[chosen]) ++word;
      code[i] = static_cast<Code>(word);
    }
  });
}

VectorQuantizationTables vector_quantization_tables(const Var& codebooks, const Var& bilinear,
                                                    const VectorQuantizationOptions& options) {
  check_tables(codebooks, bilinear, options.similarity);
  const Tensor c = codebooks.value().contiguous();
  const Tensor m = bilinear.defined() ? bilinear.value().contiguous() : Tensor();
  const Sizes size(c.shape());
  const std::int64_t columns = size.columns(), width = size.width;
  const Shape products_shape = detail::products_shape(c.shape(), options);
  const std::int64_t product_stride = products_shape[1];
  const bool squared = options.similarity == CodewordSimilarity::squared_distance;
  Tensor projected({columns, width}, c.dtype()), products = Tensor::zeros(products_shape, c.dtype());
  Tensor bias({squared ? columns : 0}, c.dtype()), first_equal;
  dispatch_floating(c.dtype(), kName, [&]<class T>(T) {
    const T* words = c.data<T>();
    check_finite(size, words, m.defined() ? m.data<T>() : nullptr);
    first_equal = first_of_equals(size, words);
    T* k = projected.mutable_data<T>();
    if (m.defined()) {
      blas::parallel_gemm(Transpose::no, Transpose::yes, columns, width, width, T{1}, words, width, m.data<T>(), width,
                          T{0}, k, width);
    } else {
      std::copy_n(words, c.numel(), k);
      if (squared) kernels::scale(k, T{2}, c.numel());
    }
    if (product_stride > 0) later_products(size, words, k, product_stride, products.mutable_data<T>());
    if (squared) squared_norms(size, words, bias.mutable_data<T>());
  });
  TablesRule rule{options.similarity, product_stride, Saved(c), Saved(m, m.defined() && codebooks.tracked()),
                  Saved(projected, product_stride > 0)};
  const Var* inputs[] = {&codebooks, &bilinear};
  std::vector<Tensor> outputs{std::move(projected), std::move(products), std::move(bias)};
  std::vector<Var> made = record(std::move(rule), inputs, std::move(outputs));
  return {codebooks, std::move(made[0]), std::move(made[1]), std::move(made[2]), std::move(first_equal)};
}

}  // namespace tally::ops
