#pragma once

#include <cstdint>
#include <vector>

#include "tally/core/tensor.h"

// How codewords are used, from the codes of rows: u8 or i32 [T, B] in [0, W).

namespace tally::nn {

/// Where the codewords of several codebooks stand to the rows that they encode.
enum class CodebookScheme : std::uint8_t {
  residual,     ///< a codebook encodes what the ones before it leave over
  independent,  ///< each encodes the row itself; codewords are added all the same
  product,      ///< each encodes a part of the columns
};

/// How often each codeword was chosen, i64 [B, W]. Throws ValueError for a code outside [0, words), DTypeError.
Tensor code_counts(const Tensor& codes, std::int64_t words);

/// exp of the entropy of each codebook's counts [B, W]: W when all codewords are used alike, 1 when one is, 0 for a
/// codebook without any.
std::vector<double> perplexity(const Tensor& counts);

/// Sums f64 [B, W, width of a codeword] of what each codeword encoded: rows of x, their parts, or what the chosen
/// codewords of earlier codebooks left of them. Parallel over columns, rows in order.
Tensor codeword_sums(const Tensor& x, const Tensor& codes, const Tensor& codebooks, CodebookScheme scheme);

}  // namespace tally::nn
