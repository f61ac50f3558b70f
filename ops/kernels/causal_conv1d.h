#pragma once

#include <cstdint>
#include <span>

namespace tally::kernels {

/// Packed sequences and the rows before each of them, under a depthwise convolution of `taps` rows.
template <class T>
struct ConvolutionRows {
  std::span<const std::int64_t> bounds;  ///< [N + 1]
  std::int64_t width = 0, taps = 1;
  const T* x = nullptr;        ///< [bounds.back(), width]
  const T* initial = nullptr;  ///< [N, taps - 1, width]; null: zeros
};

/// y_t = bias + sum_i weight_i * (row t - (taps - 1) + i of its sequence), element by element, then silu if wanted.
/// weight [taps, width], the row's own last; bias [width] or null. Sums go from the oldest row on, in runs whose sums
/// are added, so a row's bits depend on what it sees alone. Parallel over blocks of rows.
template <class T>
void causal_conv1d(const ConvolutionRows<T>& rows, const T* weight, const T* bias, bool silu, T* y);

/// g_t = gy_t silu'(before_t) for `count` elements, in place of `before`. Parallel.
template <class T>
void silu_cotangents(const T* gy, T* before, std::int64_t count);

/// gx_t = sum_i weight_i * g_(t + taps - 1 - i), over rows of the same sequence. Parallel over blocks of rows.
template <class T>
void causal_conv1d_rows_gradient(const ConvolutionRows<T>& rows, const T* weight, const T* g, T* gx);

/// The same for the rows before each sequence, ginitial [N, taps - 1, width]: a sequence shorter than taps - 1 leaves
/// the oldest of them fewer rows to be seen by, not none. Parallel over sequences.
template <class T>
void causal_conv1d_initial_gradient(const ConvolutionRows<T>& rows, const T* weight, const T* g, T* ginitial);

/// gweight_i = sum_t g_t * (the row that tap i saw at t) [taps, width]; gbias = sum_t g_t [width]. Either may be null.
/// In runs of kRowRun rows, whose sums go on in double. The same bits for any number of threads.
template <class T>
void causal_conv1d_weight_gradient(const ConvolutionRows<T>& rows, const T* g, T* gweight, T* gbias);

}  // namespace tally::kernels
