#pragma once

#include <cstdint>
#include <span>

namespace tally::kernels {

/// Packed sequences whose rows mix the values near them.
struct LocalMixingPlan {
  std::span<const std::int64_t> bounds;  ///< [N + 1]
  std::int64_t heads = 1, taps = 1;
  std::int64_t width = 0;  ///< of a row of values
  std::int64_t ahead = 0;  ///< tap i of row t sees row t + ahead - i
};

/// output [T, heads, width]: of row t and head h the sum of weights[t, h, i] times the value that tap i sees, if there
/// is one. weights [T, heads, taps], values [T, width]. Parallel over blocks of rows.
template <class T>
void local_mixing(const LocalMixingPlan& plan, const T* weights, const T* values, T* output);

/// Inner products of gradient_output [T, heads, width] with the values seen; 0 where there is none.
template <class T>
void local_mixing_weights_gradient(const LocalMixingPlan& plan, const T* values, const T* gradient_output,
                                   T* gradient_weights);

/// Of a row of values, the sum over those that see it.
template <class T>
void local_mixing_values_gradient(const LocalMixingPlan& plan, const T* weights, const T* gradient_output,
                                  T* gradient_values);

}  // namespace tally::kernels
