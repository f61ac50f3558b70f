#pragma once

#include <cstdint>
#include <span>

namespace tally::kernels {

/// What forward and backward of a long short-term memory share. Gates of a row stand in the order i, f, g, o.
template <class T>
struct LstmPlan {
  std::span<const std::int64_t> bounds;  ///< sequence i occupies rows [bounds[i], bounds[i + 1])
  std::int64_t width = 0;                ///< H
  const T* weight = nullptr;             ///< hidden weight [4 H, H]
  const T* initial_state = nullptr;      ///< before the first row [sequences, H]; null for zeros
  const T* initial_cell = nullptr;
};

/// Numbers kept for a row are kLstmSaved * H: the gates, and tanh of the cell.
inline constexpr std::int64_t kLstmSaved = 5;

/// states and cells [T, H] from input products [T, 4 H], hidden bias [4 H] or null; `saved` [T, kLstmSaved * H] may be
/// null.
template <class T>
void lstm_forward(const LstmPlan<T>& plan, const T* products, const T* bias, T* states, T* cells, T* saved);

template <class T>
struct LstmBackward {
  const T *gradient_states = nullptr, *gradient_cells = nullptr;
  const T *cells = nullptr, *saved = nullptr;
  T* gradient_products = nullptr;                                         ///< [T, 4 H], also of the hidden products
  T *gradient_initial_state = nullptr, *gradient_initial_cell = nullptr;  ///< [sequences, H] or null
};
template <class T>
void lstm_backward(const LstmPlan<T>& plan, const LstmBackward<T>& data);

}  // namespace tally::kernels
