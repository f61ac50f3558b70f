#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tally::blas {

enum class Transpose : bool { no = false, yes = true };

/// C [m, n] = alpha * op(A) * op(B) + beta * C on the calling thread, by OpenBLAS or by kernels of our own (see
/// multiplies_packed), row-major, op(A) [m, k], op(B) [k, n]; lda, ldb,
/// ldc are the distances between rows as stored. beta = 0 ignores what C held, NaN included. Sizes of 0 are ordinary.
///
/// The first call verifies the linked OpenBLAS: throws BackendError for the serial build (wrong results under many
/// threads) and the OpenMP build (hangs), naming the package to install, and when a self-test against plain loops
/// fails.
void gemm(Transpose a_transposed, Transpose b_transposed, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
          const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc);
void gemm(Transpose a_transposed, Transpose b_transposed, std::int64_t m, std::int64_t n, std::int64_t k, double alpha,
          const double* a, std::int64_t lda, const double* b, std::int64_t ldb, double beta, double* c,
          std::int64_t ldc);

/// Part of a matrix: columns [first + i, end + i) of row i, cut to the matrix; at first all of it.
struct Band {
  static constexpr std::int64_t kUnlimited = std::int64_t{1} << 40;
  std::int64_t first = -kUnlimited;
  std::int64_t end = kUnlimited;
};

/// The same part of the transpose.
constexpr Band transposed(Band band) { return {1 - band.end, 1 - band.first}; }

/// Elements of a band in a matrix of this size.
std::int64_t band_size(Band band, std::int64_t rows, std::int64_t columns);

/// gemm() for an op(A) that holds zeros outside `left`: most of the work with them is left out, and so may be what zero
/// times NaN or infinity gives. For the weights of a causal attention.
void left_band_gemm(Band left, Transpose a_transposed, Transpose b_transposed, std::int64_t m, std::int64_t n,
                    std::int64_t k, float alpha, const float* a, std::int64_t lda, const float* b, std::int64_t ldb,
                    float beta, float* c, std::int64_t ldc);
void left_band_gemm(Band left, Transpose a_transposed, Transpose b_transposed, std::int64_t m, std::int64_t n,
                    std::int64_t k, double alpha, const double* a, std::int64_t lda, const double* b, std::int64_t ldb,
                    double beta, double* c, std::int64_t ldc);

/// gemm() with beta = 0 of which only the part `result` of C is wanted: the rest holds anything afterwards. For the
/// scores of a causal attention.
void result_band_gemm(Band result, Transpose a_transposed, Transpose b_transposed, std::int64_t m, std::int64_t n,
                      std::int64_t k, float alpha, const float* a, std::int64_t lda, const float* b, std::int64_t ldb,
                      float* c, std::int64_t ldc);
void result_band_gemm(Band result, Transpose a_transposed, Transpose b_transposed, std::int64_t m, std::int64_t n,
                      std::int64_t k, double alpha, const double* a, std::int64_t lda, const double* b,
                      std::int64_t ldb, double* c, std::int64_t ldc);

/// The f32 product by OpenBLAS whatever its sizes, to compare with.
void openblas_gemm(Transpose a_transposed, Transpose b_transposed, std::int64_t m, std::int64_t n, std::int64_t k,
                   float alpha, const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta,
                   float* c, std::int64_t ldc);

/// The product of gemm() cut into tiles of fixed size that run in parallel (see parallel_for). The same bits for any
/// number of threads; not always those of gemm().
void parallel_gemm(Transpose a_transposed, Transpose b_transposed, std::int64_t m, std::int64_t n, std::int64_t k,
                   float alpha, const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta,
                   float* c, std::int64_t ldc);
void parallel_gemm(Transpose a_transposed, Transpose b_transposed, std::int64_t m, std::int64_t n, std::int64_t k,
                   double alpha, const double* a, std::int64_t lda, const double* b, std::int64_t ldb, double beta,
                   double* c, std::int64_t ldc);

/// y [n] = alpha * op(A) x + beta * y for A [rows, columns] as stored.
void gemv(Transpose a_transposed, std::int64_t rows, std::int64_t columns, float alpha, const float* a,
          std::int64_t lda, const float* x, float beta, float* y);
void gemv(Transpose a_transposed, std::int64_t rows, std::int64_t columns, double alpha, const double* a,
          std::int64_t lda, const double* x, double beta, double* y);

/// Operations (2 m n k, of a band only what it holds) of all matrix products so far in this process: what a training
/// step's speed is measured by.
std::uint64_t operations();

/// Verifies the library as the first gemm would.
void verify();
/// "OpenBLAS 0.3.21 ... SkylakeX, pthread, 1 thread".
std::string description();
/// Kernel family OpenBLAS chose for this CPU, e.g. "SkylakeX".
std::string core_name();

/// The widest vector instructions of a CPU, as far as OpenBLAS has kernels of their own for them.
enum class VectorWidth { older, avx2, avx512 };
/// Of this CPU.
VectorWidth vector_width();
/// Of the kernels that OpenBLAS calls `core_name`, as far as they are for x86 CPUs.
VectorWidth kernel_width(std::string_view core_name);

/// Whether an f32 product is left to packed_product.h, where OpenBLAS runs on `kernels` and the CPU has `width`: always
/// when the kernels leave vectors of the CPU unused, and else for the sizes at which it was measured to be faster
/// (docs/core.md). Depends on nothing else, so that the same product has the same bits in every run.
bool multiplies_packed(VectorWidth kernels, VectorWidth width, Transpose a_transposed, Transpose b_transposed,
                       std::int64_t m, std::int64_t n, std::int64_t k);

/// One line for a CPU that has AVX2 or better while OpenBLAS runs on kernels without it (as it does on CPUs that it
/// does not know): what is lost, and the variable that helps. Empty when nothing is.
std::string fallback_warning(std::string_view core_name, VectorWidth width);
/// The same for the library that is linked and this CPU.
std::string fallback_warning();

}  // namespace tally::blas
