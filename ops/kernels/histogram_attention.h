#pragma once

#include <cstdint>
#include <span>

#include "tally/ops/kernels/histogram_scan.h"

namespace tally::kernels {

/// One call of attention by codeword histogram over packed sequences: what forward and backward share.
template <class T>
struct HistogramProblem {
  std::span<const std::int64_t> bounds;  ///< sequence i occupies rows [bounds[i], bounds[i + 1])
  std::int64_t codebooks = 0, words = 0;
  std::int64_t width = 0;  ///< of values
  bool causal = true;
  std::int64_t window = 0;    ///< rows nearer than this are tallied; 0 for no limit
  double scale = 1;           ///< of inner products
  double rate = 0;            ///< decay of counts is e^-rate per row
  CodeRows codes;             ///< of queries, and tallied unless logits or dense are
  const T* logits = nullptr;  ///< [T, codebooks, words]: their softmax is tallied
  const T* dense = nullptr;   ///< [T, codebooks, words]: is tallied itself
  const T* tables = nullptr;  ///< [codebooks, words, words]
  const T* values = nullptr;  ///< [codebooks * words, width]
};

/// output [T, width]. Parallel over tiles of rows.
template <class T>
void histogram_attention_forward(const HistogramProblem<T>& problem, T* output);

/// What backward reads and writes; gradients may be null.
template <class T>
struct HistogramGradients {
  const T* output = nullptr;  ///< [T, width]: the cotangent
  const T* logits = nullptr;  ///< [T, codebooks, words]: assignments are the logits' softmax, straight through or not
  T* logit_gradients = nullptr;
  T* tables = nullptr;
  T* values = nullptr;
  double* rate = nullptr;
};

/// Computes counts and probabilities again, tile by tile.
template <class T>
void histogram_attention_backward(const HistogramProblem<T>& problem, const HistogramGradients<T>& gradients);

}  // namespace tally::kernels
