#pragma once

#include <cstdint>

#include "tally/core/blas.h"
#include "tally/core/tensor.h"

/// Products of f32 matrices of our own, for the shapes of recommenders: many rows, an inner size of 16 to 256. For
/// blas.cpp, which chooses between them and OpenBLAS, and for kernels that keep a packed operand or want what is said
/// here of bits; everyone else calls blas::gemm.
namespace tally::packed {

/// A matrix as stored, row-major: its element (i, j) stands at data[i * stride + j], or of the transpose at
/// data[j * stride + i].
struct MatrixView {
  const float* data = nullptr;
  std::int64_t stride = 0;
  blas::Transpose transposed = blas::Transpose::no;
};

/// C [m, n] = alpha op(A) op(B) + beta C + bias.
struct Product {
  std::int64_t m = 0, n = 0, k = 0;
  float alpha = 1;
  MatrixView a;  ///< op(A) is [m, k]
  MatrixView b;  ///< op(B) is [k, n]
  float beta = 0;
  float* c = nullptr;
  std::int64_t c_stride = 0;
  const float* bias = nullptr;  ///< [n], added to every row; null: none
  blas::Band left = {};         ///< outside of which op(A) holds zeros; most of them are not read
  blas::Band result = {};       ///< outside of which C may be left as it was
};

/// Computes the product on the calling thread. beta = 0 ignores what C held; elsewhere NaN and infinity go as IEEE 754
/// says, whatever alpha is. Sizes of 0 are ordinary. C overlaps neither operand. Nothing is read or written beside the
/// matrices.
///
/// An element is one chain of (on CPUs that have them, fused) multiplications and additions in the order of the inner
/// index, broken into equal parts when k > 512: its bits depend on its row of A, its column of B, alpha, beta and what
/// C held, and on the SIMD target; not on m, n, strides, alignment, bands or other rows and columns.
///
/// Works in a buffer of 1.1 MiB that a thread keeps until it ends and that memory_stats() does not count.
void multiply(const Product& product);

/// op(B) [rows, columns] in the order in which multiply() reads it, for products that have the same right operand: an
/// item table, the weights of a layer. A value: it keeps nothing of the matrix it was made of.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  PackedMatrix(const MatrixView& matrix, std::int64_t rows, std::int64_t columns);

  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }

 private:
  friend void multiply(const Product& product, const PackedMatrix& b, std::int64_t first_column);

  std::int64_t rows_ = 0, columns_ = 0, panel_ = 0;
  Tensor values_;
};

/// Columns of a panel on the SIMD target in use: where columns of a PackedMatrix can begin.
std::int64_t panel_columns();

/// The same product, to the bit, with columns [first_column, first_column + n) of b in the place of product.b. Throws
/// ShapeError when b has not k rows and these columns, or a panel does not begin with the first of them; ValueError
/// when it was packed for vectors of another length (set_simd_target between the two).
void multiply(const Product& product, const PackedMatrix& b, std::int64_t first_column = 0);

}  // namespace tally::packed
