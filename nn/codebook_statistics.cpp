#include "tally/nn/codebook_statistics.h"

#include <cmath>

#include "tally/core/parallel.h"

namespace tally::nn {
namespace {

constexpr std::int64_t kColumns = 32;  // of a block

template <class Body>
void dispatch_codes(const Tensor& codes, std::string_view where, Body&& body) {
  if (codes.dtype() == DType::u8) return body(std::uint8_t{});
  if (codes.dtype() == DType::i32) return body(std::int32_t{});
  fail<DTypeError>(where, "needs codes of u8 or i32; got ", codes.dtype());
}

template <class T, class Code>
void add_columns(const Tensor& x, const Tensor& codes, const Tensor& codebooks, CodebookScheme scheme,
                 std::int64_t begin, std::int64_t end, double* sums) {
  const std::int64_t rows = x.dim(0), books = codebooks.dim(0), words = codebooks.dim(1), width = codebooks.dim(2);
  const T *px = x.data<T>(), *pc = codebooks.data<T>();
  const Code* chosen = codes.data<Code>();
  std::vector<double> rest(static_cast<std::size_t>(end - begin));
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t book = 0; book < books; ++book) {
      const std::int64_t word = (book * words + chosen[row * books + book]) * width;
      if (book == 0 || scheme == CodebookScheme::product) {
        const T* from = px + row * x.dim(1) + (scheme == CodebookScheme::product ? book * width : 0);
        for (std::int64_t i = begin; i < end; ++i) {
          rest[static_cast<std::size_t>(i - begin)] = static_cast<double>(from[i]);
        }
      }
      for (std::int64_t i = begin; i < end; ++i) {
        double& left = rest[static_cast<std::size_t>(i - begin)];
        sums[word + i] += left;
        if (scheme == CodebookScheme::residual) left -= static_cast<double>(pc[word + i]);
      }
    }
  }
}

}  // namespace

Tensor code_counts(const Tensor& codes, std::int64_t words) {
  check<ShapeError>(codes.rank() == 2, "code_counts", "needs codes [T, B]; got ", codes.shape());
  const Tensor from = codes.contiguous();
  const std::int64_t books = codes.dim(1);
  Tensor counts = Tensor::zeros({books, words}, DType::i64);
  auto* out = counts.mutable_data<std::int64_t>();
  dispatch_codes(codes, "code_counts", [&]<class Code>(Code) {
    const Code* values = from.data<Code>();
    for (std::int64_t i = 0; i < from.numel(); ++i) {
      const auto code = static_cast<std::int64_t>(values[i]);
      check<ValueError>(code >= 0 && code < words, "code_counts", "needs codes in [0, ", words, "); code ", i % books,
                        " of row ", i / books, " is ", code);
      ++out[i % books * words + code];
    }
  });
  return counts;
}

std::vector<double> perplexity(const Tensor& counts) {
  check<ShapeError>(counts.rank() == 2, "perplexity", "needs counts [B, W]; got ", counts.shape());
  const std::vector<double> values = counts.to_doubles();
  const auto words = static_cast<std::size_t>(counts.dim(1));
  std::vector<double> result;
  for (std::size_t first = 0; first < values.size(); first += words) {
    double total = 0, entropy = 0;
    for (std::size_t w = first; w < first + words; ++w) total += values[w];
    for (std::size_t w = first; w < first + words; ++w) {
      if (values[w] > 0) entropy -= values[w] / total * std::log(values[w] / total);
    }
    result.push_back(total > 0 ? std::exp(entropy) : 0);
  }
  return result;
}

Tensor codeword_sums(const Tensor& x, const Tensor& codes, const Tensor& codebooks, CodebookScheme scheme) {
  check<ShapeError>(x.rank() == 2 && codebooks.rank() == 3 && codes.shape() == Shape({x.dim(0), codebooks.dim(0)}),
                    "codeword_sums", "needs x [T, D], codes [T, B] and codebooks [B, W, .]; got ", x.shape(), ", ",
                    codes.shape(), " and ", codebooks.shape());
  const std::int64_t width = codebooks.dim(2),
                     columns = scheme == CodebookScheme::product ? width * codes.dim(1) : width;
  check<ShapeError>(x.dim(1) == columns, "codeword_sums", "needs rows of ", columns, " columns; got x ", x.shape());
  check<DTypeError>(x.dtype() == codebooks.dtype(), "codeword_sums", "needs equal types; got ", x.dtype(), " and ",
                    codebooks.dtype());
  const Tensor rows = x.contiguous(), chosen = codes.contiguous(), words = codebooks.contiguous();
  code_counts(chosen, codebooks.dim(1));  // refuses codes out of range
  Tensor sums = Tensor::zeros(codebooks.shape(), DType::f64);
  double* out = sums.mutable_data<double>();
  dispatch_floating(x.dtype(), "codeword_sums", [&]<class T>(T) {
    dispatch_codes(chosen, "codeword_sums", [&]<class Code>(Code) {
      parallel_for(width, kColumns, [&](std::int64_t begin, std::int64_t end) {
        add_columns<T, Code>(rows, chosen, words, scheme, begin, end, out);
      });
    });
  });
  return sums;
}

}  // namespace tally::nn
