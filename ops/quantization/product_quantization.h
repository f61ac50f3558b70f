#pragma once

#include "tally/ops/quantization/vector_quantization.h"

namespace tally::ops {

struct ProductQuantizationOptions {
  CodewordSimilarity similarity = CodewordSimilarity::squared_distance;  ///< or dot
  double temperature = 0.7;                                              ///< divides the similarities; above 0
  CodewordAssignment assignment = CodewordAssignment::hard;
};

/// Product quantization (Jegou et al., "Product quantization for nearest neighbor search", TPAMI 2011): x [T, B * D] is
/// cut into B parts of D columns, and part b is replaced by its most similar codeword of codebooks[b], codebooks
/// [B, W, D]. Similarities, temperature, assignments, logits, codes and gradients are those of vector_quantization(),
/// one part at a time and without residual passes; the reconstruction [T, B * D] is the codewords end to end.
///
/// Keeps x, codebooks, logits and codes. Throws ShapeError, DTypeError; ValueError for bilinear similarity, a
/// temperature that is not above 0, and a row of x or a codeword that is not finite, naming it.
VectorQuantization product_quantization(const Var& x, const Var& codebooks,
                                        const ProductQuantizationOptions& options = {});

}  // namespace tally::ops
