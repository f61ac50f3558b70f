#pragma once

#include <cstdint>

// Choosing codewords by their scores, and summing chosen codewords. f32 is SIMD, dispatched at run time; f64 plain. All
// run on the calling thread. Code is std::uint8_t or std::int32_t.

namespace tally::kernels {

/// Scores [rows, books * words], `stride` elements between rows: what choose_codewords() reads.
template <class T>
struct CodewordScores {
  const T* scores = nullptr;
  std::int64_t stride = 0, rows = 0, books = 0, words = 0;
  const T* bias = nullptr;  ///< [books * words], added; or null
  /// [books * words, books * words], rows `product_stride` apart: choosing codeword u of book a subtracts row (a, u)
  /// from the scores of later books. Null: nothing is subtracted.
  const T* products = nullptr;
  std::int64_t product_stride = 0;
};

/// codes[row * code_stride + book] = the word of the largest score, the lowest of equals, 0 where no score is a number
/// above -infinity. `final_scores`, when not null, receives the scores after bias and subtractions, times `scale`, with
/// the stride of the scores; it may be the scores themselves.
template <class Code>
void choose_codewords(const CodewordScores<float>& in, Code* codes, std::int64_t code_stride, float* final_scores,
                      float scale);
template <class Code>
void choose_codewords(const CodewordScores<double>& in, Code* codes, std::int64_t code_stride, double* final_scores,
                      double scale);

/// Codes of rows, `stride` codes apart, into codebooks [books, words, width].
template <class Code>
struct CodeRows {
  const Code* codes = nullptr;
  std::int64_t stride = 0, rows = 0, books = 0, words = 0, width = 0;
};

/// out[row, :] = the sum over books, in order, of codebooks[book, code, :], added to what out holds with `keep`; rows
/// of out are `out_stride` apart.
template <class T, class Code>
void sum_codewords(const T* codebooks, const CodeRows<Code>& in, T* out, std::int64_t out_stride, bool keep = false);

/// sums[book, code, :] += factor * values[row, :] for every book, rows in order, `value_stride` apart.
template <class T, class Code>
void scatter_to_codewords(const T* values, std::int64_t value_stride, T factor, const CodeRows<Code>& in, T* sums);

/// Index of the first of `rows` rows of `width` elements, `stride` apart, with an element that is infinite or NaN; -1
/// when there is none.
std::int64_t first_row_not_finite(const float* x, std::int64_t rows, std::int64_t width, std::int64_t stride);
std::int64_t first_row_not_finite(const double* x, std::int64_t rows, std::int64_t width, std::int64_t stride);

}  // namespace tally::kernels
