#pragma once

#include "tally/autograd/var.h"

namespace tally::ops {

struct DecodeCodesOptions {
  bool concatenate = false;  ///< lay the codewords of a row end to end (product quantization) instead of adding them
};

/// The codewords that codes name: row t is sum_b codebooks[b, codes[t, b], :], or these rows end to end.
///
/// codebooks [B, W, D]   codes u8 or i32 [T, B] in [0, W). Returns [T, D], or [T, B * D] when concatenated. The
/// gradient of the codebooks is dense: rows that chose a codeword are summed, in slices of rows added in order.
/// Gradients do not pass to what chose the codes: the codebook term of VQ-VAE (van den Oord et al., arXiv 1711.00937)
/// is sum(square(decode_codes(codebooks, codes) - x.detach())). Keeps the codes. Throws ShapeError, DTypeError;
/// ValueError for a code outside [0, W), naming its place.
Var decode_codes(const Var& codebooks, const Tensor& codes, const DecodeCodesOptions& options = {});

}  // namespace tally::ops
