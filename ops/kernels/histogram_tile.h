#pragma once

#include <cstdint>

// What attention by codeword histogram does to a tile of rows between its matrix products. f32 is SIMD, dispatched at
// run time; f64 exists for checking. All run on the calling thread.
//
// A tile has one row of `codebooks * padded` elements per token; the codewords of a codebook are padded to whole
// vectors with counts, exponentials and probabilities of 0.

namespace tally::kernels {

inline constexpr std::int64_t kCodewordPadding = 16;
/// Most rows of a tile.
inline constexpr std::int64_t kHistogramTileRows = 128;
/// Logarithm of the largest gradient of a codeword's count that is not cut off.
inline constexpr double kLargestLogRatio = 80;

/// Codes [T, codebooks] of either width; one of the pointers is null.
struct CodeRows {
  const std::uint8_t* narrow = nullptr;
  const std::int32_t* wide = nullptr;
  std::int64_t codebooks = 0;

  std::int64_t at(std::int64_t row, std::int64_t codebook) const {
    const std::int64_t i = row * codebooks + codebook;
    return narrow != nullptr ? std::int64_t{narrow[i]} : std::int64_t{wide[i]};
  }
  CodeRows from(std::int64_t row) const {
    return {narrow == nullptr ? nullptr : narrow + row * codebooks, wide == nullptr ? nullptr : wide + row * codebooks,
            codebooks};
  }
};

/// Inner products of codewords and their exponentials.
template <class T>
struct CodewordTables {
  std::int64_t codebooks = 0;
  std::int64_t words = 0;
  std::int64_t padded = 0;      ///< words rounded up to kCodewordPadding
  double scale = 1;             ///< of the products
  const T* products = nullptr;  ///< [codebooks, words, words]
  const T* exponentials =
      nullptr;  ///< [codebooks, words, padded]: exp(scale (product - largest of the row)), padded by 0

  std::int64_t stride() const { return codebooks * padded; }
};

/// Fills exponentials [words, padded] of one codebook from products [words, words].
template <class T>
void tabulate_exponentials(const T* products, std::int64_t words, std::int64_t padded, double scale, T* exponentials);

/// Where the normalisers of a tile's rows and codebooks go: [rows, codebooks] each.
///
/// The sum of counts times exponentials is nearly always a good number, and its inverse is kept. When every codeword
/// that is present lies so far below the row's largest product that the sum underflows, the probabilities are computed
/// relative to the largest product present instead, inverse is 0, and log_sum is log sum_w count_w exp(scale
/// product_w).
template <class T>
struct Normalizers {
  T* inverse = nullptr;
  T* log_sum = nullptr;
};

/// counts [rows, stride] become probabilities count_w e_w / sum_v count_v e_v of the row's code, codebook by codebook.
void histogram_probabilities(const CodewordTables<float>& tables, CodeRows codes, std::int64_t rows, float* counts,
                             Normalizers<float> normalizers);
void histogram_probabilities(const CodewordTables<double>& tables, CodeRows codes, std::int64_t rows, double* counts,
                             Normalizers<double> normalizers);

/// The same for the causal tally of the codes themselves, whose counts stay in registers: row i counts `before` times
/// powers[i + 1] and its rows 0 ... i, row j times powers[i - j]. `before` [stride] may be null. powers[i] = decay^i.
void causal_probabilities(const CodewordTables<float>& tables, CodeRows codes, std::int64_t rows, const float* before,
                          const float* powers, float* probabilities, Normalizers<float> normalizers);
void causal_probabilities(const CodewordTables<double>& tables, CodeRows codes, std::int64_t rows, const double* before,
                          const double* powers, double* probabilities, Normalizers<double> normalizers);

/// Backward: `gradients` [rows, stride] of the probabilities become those of the counts,
/// (e_w / sum) (g_w - sum_v p_v g_v), and p_w (g_w - sum_v p_v g_v) is added to the row's code's row of
/// table_gradients [codebooks, words, padded] unless null.
void histogram_probabilities_backward(const CodewordTables<float>& tables, CodeRows codes, std::int64_t rows,
                                      const float* probabilities, Normalizers<float> normalizers, float* gradients,
                                      float* table_gradients);
void histogram_probabilities_backward(const CodewordTables<double>& tables, CodeRows codes, std::int64_t rows,
                                      const double* probabilities, Normalizers<double> normalizers, double* gradients,
                                      double* table_gradients);

/// Softmax of logits [rows, codebooks, words] into padded rows [rows, stride].
void codeword_softmax(const CodewordTables<float>& tables, const float* logits, std::int64_t rows, float* assignments);
void codeword_softmax(const CodewordTables<double>& tables, const double* logits, std::int64_t rows,
                      double* assignments);

/// Its backward: dense gradients [rows, codebooks, words] of the logits, a_w (g_w - sum_v a_v g_v).
void codeword_softmax_backward(const CodewordTables<float>& tables, const float* assignments, const float* gradients,
                               std::int64_t rows, float* logit_gradients);
void codeword_softmax_backward(const CodewordTables<double>& tables, const double* assignments, const double* gradients,
                               std::int64_t rows, double* logit_gradients);

/// Dense rows [rows, stride] tallied from the last to the first: out row i = sum_(j >= i) powers[j - i] row j, and
/// powers[rows - i] `after` [stride], which may be null. `out` may be `from`. stride is a multiple of kCodewordPadding.
void tally_back(const float* from, std::int64_t rows, std::int64_t stride, const float* after, const float* powers,
                float* out);
void tally_back(const double* from, std::int64_t rows, std::int64_t stride, const double* after, const double* powers,
                double* out);
/// sums [stride] = sum_i weights[i] row i.
void sum_weighted_rows(const float* from, std::int64_t rows, std::int64_t stride, const float* weights, float* sums);
void sum_weighted_rows(const double* from, std::int64_t rows, std::int64_t stride, const double* weights, double* sums);

/// x[i] = factor x[i], 0 where that is below the smallest normal number: old counts would become denormal and slow. n
/// is a multiple of kCodewordPadding.
void decay_counts(float* x, float factor, std::int64_t n);
void decay_counts(double* x, double factor, std::int64_t n);

}  // namespace tally::kernels
