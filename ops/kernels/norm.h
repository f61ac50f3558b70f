#pragma once

#include <cstdint>

#include "tally/ops/kernels/dropout.h"

// Layer and RMS normalisation of rows, alone or fused with the dropout and the residual sum before it. One source for
// both kinds and both element types. All run on the calling thread.

namespace tally::kernels {

/// Numbers kept of a row: first estimate of the mean, its correction (both 0 for RMS), 1 / deviation. Two numbers for
/// the mean keep deviations accurate where the mean is far larger than they are.
inline constexpr std::int64_t kNormStatistics = 3;

template <class T>
struct NormForward {
  std::int64_t columns = 0;
  double epsilon = 0;
  const T* x = nullptr;
  const T* residual = nullptr;        ///< null: x alone is normalised and `sum` not written
  const DropoutMask* mask = nullptr;  ///< of x, with a residual only; null: none
  std::uint64_t first_row = 0;        ///< of the mask
  const T* weight = nullptr;          ///< null: ones
  const T* bias = nullptr;            ///< null: zeros
  T* sum = nullptr;
  T* y = nullptr;
  T* statistics = nullptr;  ///< [rows, kNormStatistics]
};

/// Rows [begin, end). `centred`: less their mean (layer normalisation), or as they are (RMS).
void normalize(bool centred, const NormForward<float>& call, std::int64_t begin, std::int64_t end);
void normalize(bool centred, const NormForward<double>& call, std::int64_t begin, std::int64_t end);

template <class T>
struct NormBackward {
  std::int64_t columns = 0;
  const T* sum = nullptr;  ///< what was normalised
  const T* statistics = nullptr;
  const T* weight = nullptr;
  const T* gy = nullptr;
  const T* gsum = nullptr;  ///< cotangent of the sum itself; null: none
  const DropoutMask* mask = nullptr;
  std::uint64_t first_row = 0;
  T* gresidual = nullptr;  ///< gradient of the sum; null: not wanted
  T* gx = nullptr;         ///< the mask times that; null: not wanted
};

/// Rows [begin, end). Adds their part of the weight's and the bias's gradient to gweight and gbias [columns], either
/// may be null; `scratch` [2 * columns] is overwritten.
void normalize_backward(bool centred, const NormBackward<float>& call, std::int64_t begin, std::int64_t end,
                        double* gweight, double* gbias, float* scratch);
void normalize_backward(bool centred, const NormBackward<double>& call, std::int64_t begin, std::int64_t end,
                        double* gweight, double* gbias, double* scratch);

}  // namespace tally::kernels
