#pragma once

#include <cstdint>

#include "tally/ops/kernels/codewords.h"

namespace tally::kernels {

/// One call of residual quantization (ops/quantization/vector_quantization.h says what it computes), as raw views.
template <class T>
struct QuantizationPlan {
  std::int64_t rows = 0, books = 0, words = 0, width = 0;
  /// Codebooks that encode the same rows: those of one group share a product, and pass on what they chose through
  /// `products`. The first group encodes x, a later one what the groups before it left over.
  std::int64_t group_books = 0;
  bool soft = false;
  T inverse_temperature = 1;
  std::int64_t row_stride = 0;    ///< between rows of x, of the reconstruction and of their gradients
  std::int64_t code_stride = 0;   ///< between rows of codes
  std::int64_t logit_stride = 0;  ///< between rows of logits and of their gradient
  const T* x = nullptr;           ///< [rows, width]
  const T* codebooks = nullptr;   ///< [books * words, width]
  const T* projected = nullptr;   ///< [books * words, width]
  /// [books * words, group_books * words] the products of each codeword with its group's; null where a group has one
  /// codebook, and without residual passes, where all are one group.
  const T* products = nullptr;
  const T* bias = nullptr;  ///< [books * words] or null

  std::int64_t columns() const { return books * words; }
  std::int64_t group_columns() const { return group_books * words; }
  std::int64_t groups() const { return (books + group_books - 1) / group_books; }
};

/// Fills codes [rows, books] and, when not null, logits [rows, books * words] and reconstruction [rows, width].
/// Parallel over tiles of rows. Returns -1, or the first row of x that is not finite: the results are then incomplete.
template <class T, class Code>
std::int64_t quantize(const QuantizationPlan<T>& plan, Code* codes, T* logits, T* reconstruction);

/// What backward reads beside the plan and writes. Cotangents and gradients may be null; gradients of tables must come
/// zeroed, that of x is overwritten.
template <class T, class Code>
struct QuantizationBackward {
  const T* logits = nullptr;  ///< [rows, books * words]
  const Code* codes = nullptr;
  const T* gradient_reconstruction = nullptr;  ///< [rows, width]
  const T* gradient_logits = nullptr;          ///< [rows, books * words]
  T* x = nullptr;
  T* codebooks = nullptr;
  T* projected = nullptr;
  T* products = nullptr;
  T* bias = nullptr;
};

/// Parallel over tiles of rows for the gradient of x, over columns for those of tables.
template <class T, class Code>
void quantize_backward(const QuantizationPlan<T>& plan, const QuantizationBackward<T, Code>& data);

/// Gradient of the chosen codewords: gradient[book, code, :] = the sum of the rows of `values` that chose it. Parallel
/// over slices of rows, added in order. `gradient` must come zeroed.
template <class T, class Code>
void scatter_to_chosen(const T* values, std::int64_t value_stride, const CodeRows<Code>& codes, T* gradient);

}  // namespace tally::kernels
