#pragma once

#include <cstdint>
#include <span>

// The recurrence of a gated recurrent unit over packed sequences. All sequences that are still alive at a step are
// one thin product with the hidden weights, which a tile of the kernel turns into gates while the sums are in
// registers. A row's bits depend neither on the other sequences nor on threads.

namespace tally::kernels {

/// What forward and backward share. Gates of a row stand in the order r, z, n.
template <class T>
struct GruPlan {
  std::span<const std::int64_t> bounds;  ///< sequence i occupies rows [bounds[i], bounds[i + 1])
  std::int64_t width = 0;                ///< H
  const T* weight = nullptr;             ///< hidden weight [3 H, H]
  const T* initial = nullptr;            ///< states before the first row [sequences, H]; null for zeros
};

/// Numbers kept for a row are kGruSaved * H: the gates r, z, n, and the hidden part of n before r multiplied it; where
/// r multiplies the state before the product, the state that it made.
inline constexpr std::int64_t kGruSaved = 4;

/// output [T, H] from input products [T, 3 H], hidden bias [3 H] or null; `saved` [T, kGruSaved * H] may be null.
void gru_forward(const GruPlan<float>& plan, const float* products, const float* bias, float* output, float* saved);
void gru_forward(const GruPlan<double>& plan, const double* products, const double* bias, double* output,
                 double* saved);

template <class T>
struct GruBackward {
  const T* gradient_output = nullptr;
  const T* output = nullptr;
  const T* saved = nullptr;
  T* gradient_products = nullptr;  ///< [T, 3 H], also of the hidden products' gates r and z
  T* gradient_hidden = nullptr;    ///< [T, H], of the hidden products' gate n
  T* gradient_initial = nullptr;   ///< [sequences, H] or null
};
void gru_backward(const GruPlan<float>& plan, const GruBackward<float>& data);
void gru_backward(const GruPlan<double>& plan, const GruBackward<double>& data);

/// The same where the gate r multiplies the state before the product: n = tanh(x_n + W_n (r * h) + b_n). Then
/// gradient_hidden is the gradient of x_n.
template <class T>
void gru_reset_first_forward(const GruPlan<T>& plan, const T* products, const T* bias, T* output, T* saved);
template <class T>
void gru_reset_first_backward(const GruPlan<T>& plan, const GruBackward<T>& data);

}  // namespace tally::kernels
