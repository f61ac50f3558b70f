#pragma once

#include "tally/core/random.h"
#include "tally/core/tensor.h"

// Codebooks from data by k-means. Pure functions of rows and key: the same bits for any number of threads.

namespace tally::nn {

struct KMeansOptions {
  int iterations = 25;               ///< at most; it ends when no row changes its centre
  std::int64_t rows_per_word = 256;  ///< of more rows than this per centre a keyed sample is used; 0: all rows
};

/// Centres [words, D] of rows x [T, D], in x's type: seeds by k-means++ (Arthur & Vassilvitskii, SODA 2007), then
/// Lloyd's iterations, on rows less their mean: an offset that all have in common costs no precision. A centre without
/// rows moves to the row that is farthest from its own centre. Throws ShapeError, DTypeError; ValueError for no rows,
/// no words, or a row that is not finite.
Tensor kmeans(const Tensor& x, std::int64_t words, RngKey key, const KMeansOptions& options = {});

/// Codebooks [books, words, D]: each from what the nearest codewords of the ones before it leave over of x.
Tensor residual_kmeans(const Tensor& x, std::int64_t books, std::int64_t words, RngKey key,
                       const KMeansOptions& options = {});

/// Codebooks [books, words, D / books], each from its part of the columns of x. Throws ShapeError unless books divides
/// D.
Tensor product_kmeans(const Tensor& x, std::int64_t books, std::int64_t words, RngKey key,
                      const KMeansOptions& options = {});

}  // namespace tally::nn
