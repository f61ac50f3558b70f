#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"
#include "tally/ops/attention/softmax_attention.h"
#include "tally/ops/quantization/vector_quantization.h"

namespace tally::ops {

struct HistogramAttentionOptions {
  AttentionMask mask = AttentionMask::causal;
  /// Hard: a token is tallied as its codes. Soft: as the softmax of its logits.
  CodewordAssignment assignment = CodewordAssignment::hard;
  std::int64_t window = 0;  ///< only rows fewer than this many rows away are tallied, itself included; 0 for no limit
  double scale = 0;         ///< of inner products; 0 for 1 / sqrt(D)
};

/// Attention by codeword histogram (LISA: Wu et al., "Linear-Time Self Attention with Codeword Histogram for Efficient
/// Recommendation", WWW 2021, arXiv 2105.14068): a token attends to the tally of codewords before it. For row t of a
/// sequence, with z_tb its code in codebook b and y_jb the assignment of row j (one-hot, or soft),
///
///   H_tb[w] = sum_j e^(-lambda |t - j|) y_jb[w]      over the rows j <= t, or all, nearer than the window
///   a_tb[w] = H_tb[w] exp(scale tables[b, z_tb, w])
///   o_t     = sum_b sum_w a_tb[w] values[b W + w] / sum_w a_tb[w]
///
/// which is, for hard assignments, softmax attention codebook by codebook with queries, keys and values quantized.
///
/// codes       [T, B] codeword of each token per codebook (u8 where W <= 256, or i32): the query's row of tables, never
///             differentiated, and with hard assignments what is tallied
/// assignments [T, B, W] logits, divided by their temperature; absent where nothing is soft and no gradient is wanted.
///             Hard: the gradient is that of one_hot(codes) + softmax(logits) - stopped(softmax(logits)), and absent
///             codewords have one too. Soft: the softmax is what is tallied
/// tables      [B, W, W] inner products of projected codewords      values [B * W, D] projected codewords
/// log_decay   one element, or absent: lambda = exp(log_decay), so that any real number is a valid rate and steps of an
///             optimizer are relative to it. Absent (or -infinity) is no decay: lambda = 0
/// offsets     [N + 1]
///
/// Returns [T, D]. Time O(T B W D), memory beyond inputs and output O(T B W / 60) for the tallies at borders of tiles:
/// exponentials are tabulated once, each tile of rows is one product with the values, and no one-hot is stored. Counts
/// of hard codes without decay are whole numbers, exact up to 2^24 of a codeword in f32. Nothing is subtracted from a
/// tally, also not where a window moves on, so that it keeps its digits at any length, decay and window. The largest
/// element of a table's whole row is subtracted before exp, which is exact as it cancels; where all codewords present
/// lie so far below it that they underflow, the largest of those present takes its place. A gradient of a count beyond
/// e^80 is cut off there.
///
/// Keeps codes, logits (when their gradient is wanted), tables, values and log_decay; backward tallies again. Works in
/// the type of tables (f32 or f64). Throws ShapeError; DTypeError; IndexError for a code outside [0, W); ValueError for
/// W or B of 0, tables, values, logits or a decay that are not finite, and options outside their range.
Var histogram_attention(const Tensor& codes, const Var& assignments, const Var& tables, const Var& values,
                        const Var& log_decay, const Offsets& offsets, const HistogramAttentionOptions& options = {});

}  // namespace tally::ops
