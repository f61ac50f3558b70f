#include "tally/core/blas.h"

#include <cblas.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "tally/core/error.h"
#include "tally/core/kernels.h"
#include "tally/core/packed_product.h"
#include "tally/core/parallel.h"
#include "tally/core/product_memory.h"
#include "tally/core/right_operand.h"

namespace tally::blas {
namespace {

std::atomic<std::uint64_t> operation_count{0};

constexpr CBLAS_TRANSPOSE flag(Transpose t) { return t == Transpose::yes ? CblasTrans : CblasNoTrans; }

int narrow(std::int64_t size) {
  check<ShapeError>(size >= 0 && size <= std::numeric_limits<int>::max(), "gemm",
                    "needs sizes and row distances below 2^31; got ", size);
  return static_cast<int>(size);
}

void call(Transpose ta, Transpose tb, int m, int n, int k, float alpha, const float* a, int lda, const float* b,
          int ldb, float beta, float* c, int ldc) {
  cblas_sgemm(CblasRowMajor, flag(ta), flag(tb), m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void call(Transpose ta, Transpose tb, int m, int n, int k, double alpha, const double* a, int lda, const double* b,
          int ldb, double beta, double* c, int ldc) {
  cblas_dgemm(CblasRowMajor, flag(ta), flag(tb), m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void call(Transpose ta, int rows, int columns, float alpha, const float* a, int lda, const float* x, float beta,
          float* y) {
  cblas_sgemv(CblasRowMajor, flag(ta), rows, columns, alpha, a, lda, x, 1, beta, y, 1);
}
void call(Transpose ta, int rows, int columns, double alpha, const double* a, int lda, const double* x, double beta,
          double* y) {
  cblas_dgemv(CblasRowMajor, flag(ta), rows, columns, alpha, a, lda, x, 1, beta, y, 1);
}

/// One odd-shaped product against plain loops: a wrong kernel for this CPU shows up here, in microseconds.
template <class T>
bool self_test_passes() {
  constexpr int m = 19, n = 23, k = 37;
  std::vector<T> a(m * k), b(k * n), c(m * n, std::numeric_limits<T>::quiet_NaN());
  for (int i = 0; i < m * k; ++i) a[static_cast<std::size_t>(i)] = static_cast<T>((i * 7 % 13) - 6);
  for (int i = 0; i < k * n; ++i) b[static_cast<std::size_t>(i)] = static_cast<T>((i * 5 % 11) - 5);
  call(Transpose::no, Transpose::no, m, n, k, T{1}, a.data(), k, b.data(), n, T{0}, c.data(), n);
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      T expected = 0;
      for (int l = 0; l < k; ++l)
        expected += a[static_cast<std::size_t>(i * k + l)] * b[static_cast<std::size_t>(l * n + j)];
      // Small integers: every order of summation is exact.
      if (c[static_cast<std::size_t>(i * n + j)] != expected) return false;
    }
  }
  return true;
}

/// docs/notes.md, Note [OpenBLAS variants].
bool verify_once() {
  constexpr const char* kAdvice =
      "needs the pthread build of OpenBLAS; install libopenblas-pthread-dev (and choose it with 'update-alternatives "
      "--config "
      "libopenblas.so.0-x86_64-linux-gnu')";
  const int parallel = openblas_get_parallel();
  check<BackendError>(parallel != 0, "blas", kAdvice,
                      "; got the serial build, which computes wrong results under threads");
  check<BackendError>(parallel != 2, "blas", kAdvice, "; got the OpenMP build, which hangs under several threads");
  openblas_set_num_threads(1);
  detail::take_product_memory(1);
  check<BackendError>(self_test_passes<float>() && self_test_passes<double>(), "blas",
                      "OpenBLAS computes wrong products on ", openblas_get_corename(),
                      " kernels; try OPENBLAS_CORETYPE=Haswell");
  return true;
}

bool multiplies_packed_here(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k) {
  static const VectorWidth kernels = kernel_width(core_name()), width = vector_width();
  return multiplies_packed(kernels, width, ta, tb, m, n, k);
}

/// The one place where a product goes to OpenBLAS or to our own kernels.
void multiply(Transpose ta, Transpose tb, int m, int n, int k, double alpha, const double* a, int lda, const double* b,
              int ldb, double beta, double* c, int ldc) {
  call(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void multiply(Transpose ta, Transpose tb, int m, int n, int k, float alpha, const float* a, int lda, const float* b,
              int ldb, float beta, float* c, int ldc) {
  if (multiplies_packed_here(ta, tb, m, n, k)) {
    packed::multiply({m, n, k, alpha, {a, lda, ta}, {b, ldb, tb}, beta, c, ldc});
  } else {
    call(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  }
}

void count_operations(std::int64_t pairs, std::int64_t width) {
  operation_count.fetch_add(2 * static_cast<std::uint64_t>(pairs * width), std::memory_order_relaxed);
}

template <class T>
void checked_gemm(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k, T alpha, const T* a,
                  std::int64_t lda, const T* b, std::int64_t ldb, T beta, T* c, std::int64_t ldc) {
  verify();
  if (m == 0 || n == 0) return;
  if (k == 0) {
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n; ++j) c[i * ldc + j] = beta == T{0} ? T{0} : beta * c[i * ldc + j];
    }
    return;
  }
  count_operations(m * n, k);
  multiply(ta, tb, narrow(m), narrow(n), narrow(k), alpha, a, narrow(lda), b, narrow(ldb), beta, c, narrow(ldc));
}

/// Whether a product goes to our own kernels whatever gemm() would do, since so few of `all` elements are in its band.
bool band_pays(std::int64_t size, std::int64_t all) {
  static const bool measured = vector_width() != VectorWidth::older;
  return measured && size <= all - all / 16;
}

// Tile sizes are constants: results must not depend on the number of threads.
constexpr std::int64_t kRowTile = 256;
constexpr std::int64_t kColumnTile = 512;
constexpr std::int64_t kDepthTile = 4096;

template <class T>
void tiled_gemm(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k, T alpha, const T* a,
                std::int64_t lda, const T* b, std::int64_t ldb, T beta, T* c, std::int64_t ldc) {
  const auto a_at = [&](std::int64_t row, std::int64_t depth) {
    return ta == Transpose::yes ? a + depth * lda + row : a + row * lda + depth;
  };
  const auto b_at = [&](std::int64_t depth, std::int64_t column) {
    return tb == Transpose::yes ? b + column * ldb + depth : b + depth * ldb + column;
  };
  if (m > kRowTile) {
    parallel_for(m, kRowTile, [&](std::int64_t begin, std::int64_t end) {
      checked_gemm(ta, tb, end - begin, n, k, alpha, a_at(begin, 0), lda, b, ldb, beta, c + begin * ldc, ldc);
    });
  } else if (n > kColumnTile) {
    parallel_for(n, kColumnTile, [&](std::int64_t begin, std::int64_t end) {
      checked_gemm(ta, tb, m, end - begin, k, alpha, a, lda, b_at(0, begin), ldb, beta, c + begin, ldc);
    });
  } else if (k > kDepthTile) {
    // A small result from many rows (a weight's gradient): slices of the sum, folded in order.
    const std::int64_t slices = block_count(k, kDepthTile);
    std::vector<T> partial(static_cast<std::size_t>(slices * m * n));
    parallel_for(k, kDepthTile, [&](std::int64_t begin, std::int64_t end) {
      T* out = partial.data() + begin / kDepthTile * m * n;
      checked_gemm(ta, tb, m, n, end - begin, alpha, a_at(0, begin), lda, b_at(begin, 0), ldb, T{0}, out, n);
    });
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        T sum = beta == T{0} ? T{0} : beta * c[i * ldc + j];
        for (std::int64_t s = 0; s < slices; ++s) sum += partial[static_cast<std::size_t>((s * m + i) * n + j)];
        c[i * ldc + j] = sum;
      }
    }
  } else {
    checked_gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  }
}

template <class T>
void checked_gemv(Transpose ta, std::int64_t rows, std::int64_t columns, T alpha, const T* a, std::int64_t lda,
                  const T* x, T beta, T* y) {
  verify();
  const std::int64_t outputs = ta == Transpose::yes ? columns : rows;
  if (outputs == 0) return;
  if (rows == 0 || columns == 0) {
    for (std::int64_t i = 0; i < outputs; ++i) y[i] = beta == T{0} ? T{0} : beta * y[i];
    return;
  }
  call(ta, narrow(rows), narrow(columns), alpha, a, narrow(lda), x, beta, y);
}

}  // namespace

std::uint64_t operations() { return operation_count.load(std::memory_order_relaxed); }

void verify() {
  static const bool verified = verify_once();
  (void)verified;
}

void gemm(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, const float* a,
          std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc) {
  checked_gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void gemm(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k, double alpha, const double* a,
          std::int64_t lda, const double* b, std::int64_t ldb, double beta, double* c, std::int64_t ldc) {
  checked_gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
std::int64_t band_size(Band band, std::int64_t rows, std::int64_t columns) {
  // The sum of clamp(x, 0, columns) over all x < end.
  const auto before = [columns](std::int64_t end) {
    if (end <= 0) return std::int64_t{0};
    if (end <= columns) return end * (end - 1) / 2;
    return columns * (columns - 1) / 2 + (end - columns) * columns;
  };
  const auto left_of = [&](std::int64_t end) { return before(end + rows) - before(end); };
  return std::max<std::int64_t>(left_of(band.end) - left_of(band.first), 0);
}

void left_band_gemm(Band left, Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
                    const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c,
                    std::int64_t ldc) {
  const std::int64_t size = band_size(left, m, k);
  if (!band_pays(size, m * k)) return gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  count_operations(size, n);
  packed::multiply({m, n, k, alpha, {a, lda, ta}, {b, ldb, tb}, beta, c, ldc, nullptr, left, {}});
}
void left_band_gemm(Band, Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k, double alpha,
                    const double* a, std::int64_t lda, const double* b, std::int64_t ldb, double beta, double* c,
                    std::int64_t ldc) {
  gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void result_band_gemm(Band result, Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k,
                      float alpha, const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float* c,
                      std::int64_t ldc) {
  const std::int64_t size = band_size(result, m, n);
  if (!band_pays(size, m * n)) return gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, 0, c, ldc);
  count_operations(size, k);
  packed::multiply({m, n, k, alpha, {a, lda, ta}, {b, ldb, tb}, 0, c, ldc, nullptr, {}, result});
}
void result_band_gemm(Band, Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k, double alpha,
                      const double* a, std::int64_t lda, const double* b, std::int64_t ldb, double* c,
                      std::int64_t ldc) {
  gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, 0, c, ldc);
}
void openblas_gemm(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
                   const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c,
                   std::int64_t ldc) {
  verify();
  call(ta, tb, narrow(m), narrow(n), narrow(k), alpha, a, narrow(lda), b, narrow(ldb), beta, c, narrow(ldc));
}
void parallel_gemm(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
                   const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c,
                   std::int64_t ldc) {
  tiled_gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void parallel_gemm(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k, double alpha,
                   const double* a, std::int64_t lda, const double* b, std::int64_t ldb, double beta, double* c,
                   std::int64_t ldc) {
  tiled_gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void gemv(Transpose ta, std::int64_t rows, std::int64_t columns, float alpha, const float* a, std::int64_t lda,
          const float* x, float beta, float* y) {
  checked_gemv(ta, rows, columns, alpha, a, lda, x, beta, y);
}
void gemv(Transpose ta, std::int64_t rows, std::int64_t columns, double alpha, const double* a, std::int64_t lda,
          const double* x, double beta, double* y) {
  checked_gemv(ta, rows, columns, alpha, a, lda, x, beta, y);
}

template <class T>
RightOperand<T>::RightOperand(Transpose transposed, std::int64_t k, std::int64_t n, const T* b, std::int64_t ldb,
                              std::int64_t rows)
    : transposed_(transposed), k_(k), n_(n), ldb_(ldb), b_(b) {
  if constexpr (std::is_same_v<T, float>) {
    verify();
    if (multiplies_packed_here(Transpose::no, transposed, rows, n, k)) {
      packed_.emplace(packed::MatrixView{b, ldb, transposed}, k, n);
    }
  }
}

template <class T>
void RightOperand<T>::result_band(Band result, std::int64_t first, std::int64_t n, Transpose ta, std::int64_t m,
                                  T alpha, const T* a, std::int64_t lda, T* c, std::int64_t ldc) const {
  const std::int64_t size = band_size(result, m, n);
  if (std::is_same_v<T, double> || !band_pays(size, m * n))
    return multiply_columns(first, n, ta, m, alpha, a, lda, T{0}, c, ldc);
  if constexpr (std::is_same_v<T, float>) {
    if (packed_ && first % packed::panel_columns() == 0) {
      count_operations(size, k_);
      packed::multiply({m, n, k_, alpha, {a, lda, ta}, {}, 0, c, ldc, nullptr, {}, result}, *packed_, first);
      return;
    }
  }
  const T* b = b_ + (transposed_ == Transpose::yes ? first * ldb_ : first);
  result_band_gemm(result, ta, transposed_, m, n, k_, alpha, a, lda, b, ldb_, c, ldc);
}

template <class T>
void RightOperand<T>::multiply_columns(std::int64_t first, std::int64_t n, Transpose ta, std::int64_t m, T alpha,
                                       const T* a, std::int64_t lda, T beta, T* c, std::int64_t ldc,
                                       const T* bias) const {
  if constexpr (std::is_same_v<T, float>) {
    if (packed_ && m > 0 && n > 0 && multiplies_packed_here(ta, transposed_, m, n, k_) &&
        first % packed::panel_columns() == 0) {
      count_operations(m * n, k_);
      packed::multiply({m, n, k_, alpha, {a, lda, ta}, {}, beta, c, ldc, bias}, *packed_, first);
      return;
    }
  }
  const T* b = b_ + (transposed_ == Transpose::yes ? first * ldb_ : first);
  checked_gemm(ta, transposed_, m, n, k_, alpha, a, lda, b, ldb_, beta, c, ldc);
  if (bias == nullptr) return;
  for (std::int64_t i = 0; i < m; ++i) kernels::add_into(c + i * ldc, bias, n);
}

template class RightOperand<float>;
template class RightOperand<double>;

std::string description() {
  verify();
  return detail::join(openblas_get_config(), ", ", openblas_get_corename(), " kernels, pthread build, 1 thread");
}

std::string core_name() { return openblas_get_corename(); }

VectorWidth vector_width() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return VectorWidth::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return VectorWidth::avx2;
#endif
  return VectorWidth::older;
}

VectorWidth kernel_width(std::string_view core_name) {
  // OpenBLAS' families of kernels for x86 CPUs before AVX2, of which no new ones will come, and those for AVX-512.
  static constexpr std::array<std::string_view, 22> kOlder = {
      "Katmai",    "Coppermine", "Northwood",   "Prescott", "Banias",  "Core2",        "Penryn",    "Dunnington",
      "Atom",      "Nehalem",    "Sandybridge", "Athlon",   "Opteron", "Opteron_SSE3", "Barcelona", "Bobcat",
      "Bulldozer", "Piledriver", "Steamroller", "Nano",     "Generic", "Unknown"};
  static constexpr std::array<std::string_view, 3> kAvx512 = {"SkylakeX", "Cooperlake", "SapphireRapids"};
  const auto is_one_of = [&](const auto& names) {
    return std::find(names.begin(), names.end(), core_name) != names.end();
  };
  return is_one_of(kOlder) ? VectorWidth::older : is_one_of(kAvx512) ? VectorWidth::avx512 : VectorWidth::avx2;
}

bool multiplies_packed(VectorWidth kernels, VectorWidth width, Transpose ta, Transpose tb, std::int64_t m,
                       std::int64_t n, std::int64_t k) {
  if (width == VectorWidth::older) return false;  // not measured
  if (kernels < width) return true;
  // Few rows do not pay for packing, and lanes beyond the last column are computed for nothing.
  if (m < 8 || n < 16) return false;
  if (width == VectorWidth::avx2) {
    return n % 8 == 0 && n <= (ta == Transpose::yes ? 64 : 128);
  }
  constexpr std::int64_t kLanes = 16;
  if ((kLanes - n % kLanes) % kLanes > n / 16) return false;
  // A transposed A is not packed, and read again for every block of columns.
  if (ta == Transpose::yes && n > 512) return false;
  // OpenBLAS has kernels for small products that pack nothing; they are slow where A is as stored and B transposed.
  constexpr double kSmall = 1e6;
  if (static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) > kSmall) return true;
  return ta == Transpose::no && tb == Transpose::yes && m * n >= 2048;
}

std::string fallback_warning(std::string_view core_name, VectorWidth width) {
  if (width == VectorWidth::older || kernel_width(core_name) != VectorWidth::older) return "";
  const bool widest = width == VectorWidth::avx512;
  return detail::join("warning: OpenBLAS runs on ", core_name, " kernels, which leave this CPU's ",
                      widest ? "AVX-512" : "AVX2",
                      " unused, so that f64 matrix products take several times as long; set OPENBLAS_CORETYPE=",
                      widest ? "SkylakeX" : "Haswell", " in the environment");
}

std::string fallback_warning() { return fallback_warning(core_name(), vector_width()); }

}  // namespace tally::blas
