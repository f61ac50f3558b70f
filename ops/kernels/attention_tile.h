#pragma once

#include <cstdint>

#include "tally/core/blas.h"
#include "tally/ops/kernels/dropout.h"

// What softmax attention does to a tile of scores between its matrix products: rows are queries, columns are keys. f32
// is SIMD, dispatched at run time; f64 exists for checking. All run on the calling thread.
//
// Rows of a tile lie `stride` elements apart, a multiple of kTileAlignment, and may be overwritten up to there.

namespace tally::kernels {

inline constexpr std::int64_t kTileAlignment = 64;

/// The part of a tile that is visible.
using TileBand = blas::Band;

/// Dropout of probabilities: one is kept where the bits at its place are at least the threshold.
struct TileDropout {
  const MaskBits* bits = nullptr;  ///< as far apart as the scores; null for no dropout
  MaskBits threshold = 0;
  double scale = 1;  ///< of kept elements
};

/// One step of the running softmax (Milakov & Gimelshein, arXiv 1805.02867). In: scores, the maximum and the sum of
/// exponentials of every row over earlier tiles (-infinity and 0 at first). Out: scores become exp(score - maximum),
/// dropped after they were summed, 0 where not visible; maximum and sum include this tile; rescale[r] is what
/// multiplies the row's earlier results, exp(old maximum - new maximum). `maximum` and `rescale` have room for a whole
/// number of vectors of rows. Returns whether any of them is not 1.
bool softmax_tile(float* scores, std::int64_t stride, std::int64_t rows, std::int64_t columns, TileBand band,
                  const TileDropout& dropout, float* maximum, double* sum, float* rescale);
bool softmax_tile(double* scores, std::int64_t stride, std::int64_t rows, std::int64_t columns, TileBand band,
                  const TileDropout& dropout, double* maximum, double* sum, double* rescale);

/// Backward of the same. In: scores, and `gradients` of dropped probabilities (may be null). Out: scores become dropped
/// probabilities m p, p = exp(score - log_sum_exp[r]); gradients become scale p (m gradient - delta[r]); 0 where not
/// visible. log_sum_exp and delta of row r are at r * row_distance. The log-sum-exp is in double: of scores near 1,000
/// a float would keep three digits of the probability.
void softmax_tile_backward(float* scores, float* gradients, std::int64_t stride, std::int64_t rows,
                           std::int64_t columns, TileBand band, const TileDropout& dropout, const double* log_sum_exp,
                           const float* delta, std::int64_t row_distance, float scale);
void softmax_tile_backward(double* scores, double* gradients, std::int64_t stride, std::int64_t rows,
                           std::int64_t columns, TileBand band, const TileDropout& dropout, const double* log_sum_exp,
                           const double* delta, std::int64_t row_distance, double scale);

/// x[r, :] *= factors[r] for rows that lie `stride` elements apart.
void scale_rows(float* x, std::int64_t stride, std::int64_t rows, std::int64_t columns, const float* factors);
void scale_rows(double* x, std::int64_t stride, std::int64_t rows, std::int64_t columns, const double* factors);

}  // namespace tally::kernels
