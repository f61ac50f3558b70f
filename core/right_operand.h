#pragma once

#include <optional>

#include "tally/core/blas.h"
#include "tally/core/packed_product.h"

namespace tally::blas {

/// The right operand of several products: an item table, a layer's weights. Packed once, where gemm would take our own
/// kernels and pack it each time. A view: the matrix must outlive it and stay as it is.
template <class T>
class RightOperand {
 public:
  RightOperand() = default;
  /// op(B) [k, n], stored with row distance `ldb` (before op). `rows` is how many a typical product has: it decides
  /// whether packing pays, never a bit of a result.
  RightOperand(Transpose transposed, std::int64_t k, std::int64_t n, const T* b, std::int64_t ldb, std::int64_t rows);

  std::int64_t columns() const { return n_; }

  /// C [m, n] = alpha op(A) op(B) + beta C on the calling thread, to the bits of gemm; then a bias [n], which may be
  /// null, is added to every row.
  void multiply(Transpose a_transposed, std::int64_t m, T alpha, const T* a, std::int64_t lda, T beta, T* c,
                std::int64_t ldc, const T* bias = nullptr) const {
    multiply_columns(0, n_, a_transposed, m, alpha, a, lda, beta, c, ldc, bias);
  }
  /// The same with columns [first, first + n) of op(B) alone. Packing serves those that begin at a multiple of 64.
  void multiply_columns(std::int64_t first, std::int64_t n, Transpose a_transposed, std::int64_t m, T alpha, const T* a,
                        std::int64_t lda, T beta, T* c, std::int64_t ldc, const T* bias = nullptr) const;
  /// result_band_gemm with columns [first, first + n) of op(B).
  void result_band(Band result, std::int64_t first, std::int64_t n, Transpose a_transposed, std::int64_t m, T alpha,
                   const T* a, std::int64_t lda, T* c, std::int64_t ldc) const;

 private:
  Transpose transposed_ = Transpose::no;
  std::int64_t k_ = 0, n_ = 0, ldb_ = 0;
  const T* b_ = nullptr;
  std::optional<packed::PackedMatrix> packed_;
};

}  // namespace tally::blas
