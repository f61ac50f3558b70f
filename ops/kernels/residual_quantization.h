#pragma once

#include <cstdint>

namespace tally::kernels {

/// One call of residual quantization (ops/vector_quantization.h says what it computes), as raw views.
template <class T>
struct QuantizationPlan {
  std::int64_t rows = 0, books = 0, words = 0, width = 0;
  bool soft = false;
  T inverse_temperature = 1;
  const T* x = nullptr;          ///< [rows, width]
  const T* codebooks = nullptr;  ///< [books * words, width]
  const T* projected = nullptr;  ///< [books * words, width]
  const T* inner = nullptr;      ///< [books * words, books * words]; null without residual passes
  const T* bias = nullptr;       ///< [books * words] or null

  std::int64_t columns() const { return books * words; }
};

/// Fills codes [rows, books] and, when not null, logits [rows, books * words] and reconstruction [rows, width].
/// Parallel over tiles of rows. Returns the first row of x that is not finite (results are then meaningless), else -1.
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
  T* inner = nullptr;
  T* bias = nullptr;
};

/// Parallel over slices of rows, whose parts of the tables' gradients are added in order.
template <class T, class Code>
void quantize_backward(const QuantizationPlan<T>& plan, const QuantizationBackward<T, Code>& data);

}  // namespace tally::kernels
