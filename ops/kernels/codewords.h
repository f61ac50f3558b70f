#pragma once

#include <cstdint>

// Choosing codewords by their scores, summing chosen codewords, and the softmax and straight-through slope of scores.
// f32 is SIMD, dispatched at run time; f64 plain. All run on the calling thread. Code is std::uint8_t or std::int32_t.

namespace tally::kernels {

/// Scores [rows, books * words], `stride` elements between rows: what choose_codewords() reads.
template <class T>
struct CodewordScores {
  const T* scores = nullptr;
  std::int64_t stride = 0, rows = 0, books = 0, words = 0;
  const T* bias = nullptr;  ///< [books * words], added; or null
  /// [books * words, books * words]: choosing codeword u of book a subtracts row (a, u) from the scores of later books.
  /// Null: nothing is subtracted.
  const T* inner = nullptr;
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

/// out[row, :] = the sum over books, in order, of codebooks[book, codes[row, book], :], for codebooks [books, words,
/// width].
template <class T, class Code>
void sum_codewords(const T* codebooks, const Code* codes, std::int64_t rows, std::int64_t books, std::int64_t words,
                   std::int64_t width, T* out);

/// gradient[book, codes[row, book], :] += factor * values[row, :], rows in order.
template <class T, class Code>
void scatter_to_codewords(const T* values, const Code* codes, std::int64_t rows, std::int64_t books, std::int64_t words,
                          std::int64_t width, T factor, T* gradient);

/// softmax of rows of `words` logits, `stride` elements apart in both arrays.
template <class T>
void softmax_of_words(const T* logits, T* probabilities, std::int64_t rows, std::int64_t words, std::int64_t stride);

/// With p = softmax of a row of logits: out = scale * (direct + p (upstream - <p, upstream>)), where `upstream` is read
/// from out. `direct` may be null for zeros. `probabilities`, when not null, receives p. All arrays have rows of
/// `words` elements, `stride` apart.
template <class T>
void assignment_slope(const T* logits, const T* direct, T* out, T* probabilities, std::int64_t rows, std::int64_t words,
                      std::int64_t stride, T scale);

/// Index of the first of `rows` rows of `width` elements, `stride` apart, with an element that is infinite or NaN; -1
/// when there is none.
std::int64_t first_row_not_finite(const float* x, std::int64_t rows, std::int64_t width, std::int64_t stride);
std::int64_t first_row_not_finite(const double* x, std::int64_t rows, std::int64_t width, std::int64_t stride);

}  // namespace tally::kernels
