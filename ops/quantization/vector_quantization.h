#pragma once

#include "tally/autograd/var.h"
#include "tally/core/words.h"

namespace tally::ops {

/// What a codeword c is compared with a vector r by; the largest wins, the lowest index among equals.
enum class CodewordSimilarity : std::uint8_t {
  bilinear,          ///< r^T M c, one M [D, D] for all codebooks
  dot,               ///< r^T c
  squared_distance,  ///< -||r - c||^2, without the term -||r||^2 that all codewords share: 2 r^T c - ||c||^2
};
constexpr auto words(CodewordSimilarity) {
  using W = Word<CodewordSimilarity>;
  return std::array{W{"bilinear", CodewordSimilarity::bilinear}, W{"dot", CodewordSimilarity::dot},
                    W{"squared_distance", CodewordSimilarity::squared_distance}};
}

enum class CodewordAssignment : std::uint8_t {
  hard,  ///< one codeword; backward passes straight through to the softmax of the logits
  soft,  ///< the average of all codewords under that softmax
};

struct VectorQuantizationOptions {
  CodewordSimilarity similarity = CodewordSimilarity::bilinear;
  double temperature = 0.7;  ///< divides the similarities before the softmax; above 0
  CodewordAssignment assignment = CodewordAssignment::hard;
  bool residual = true;     ///< a codebook encodes what the ones before it left over; false: each encodes x itself
  bool reconstruct = true;  ///< or leave the reconstruction undefined, for those who read codes and logits alone
  /// Codebooks whose residual passes share one matrix product; 0: as many as make 256 codewords, at least one. No
  /// matter to what is computed but for rounding.
  std::int64_t books_together = 0;
};

/// What quantization needs of the parameters alone. Make it once for many calls.
struct VectorQuantizationTables {
  Var codebooks;  ///< [B, W, D]
  Var projected;  ///< [B * W, D] rows k such that similarity is r^T k + bias: M c, c or 2 c
  /// [B * W, G * W], where G codebooks go together: inner products c^T k of each codeword c with those k of later
  /// codebooks of its group, 0 elsewhere. [0, 0] for G = 1 or without residual passes.
  Var products;
  Var bias;  ///< [B * W] -||c||^2 for squared distance; else [0]
  /// [B * W] i32: the lowest word of its codebook that equals each codeword. Absent when all differ. Products round
  /// equal codewords differently by where they stand, so that comparing similarities does not tell the lowest of them.
  Tensor first_equal = {};
  static constexpr void fields(auto& self, auto&& visit) {
    visit("codebooks", self.codebooks);
    visit("projected", self.projected);
    visit("products", self.products);
    visit("bias", self.bias);
    visit("first_equal", self.first_equal);
  }
};

namespace detail {
/// G of VectorQuantizationTables for codebooks [B, W, D], all of them without residual passes, and the shape of
/// `products`.
std::int64_t books_together(const Shape& codebooks, const VectorQuantizationOptions& options);
Shape products_shape(const Shape& codebooks, const VectorQuantizationOptions& options);
}  // namespace detail

struct VectorQuantization {
  Var reconstruction;  ///< [T, D] sum of the chosen codewords, or of the averages when soft
  Var logits;    ///< [T, B, W] similarities over temperature; squared_distance: 2 r^T c - ||c||^2 over temperature
  Tensor codes;  ///< [T, B] most similar codeword, never differentiated; u8 for W <= 256, else i32
};

/// Tables for codebooks [B, W, D] and, for bilinear similarity, M [D, D] (else it must be absent).
///
/// Gradients reach codebooks and M through all four; those of `products` through later codebooks only. Keeps codebooks,
/// M and `projected`. Throws ShapeError (B or W of zero included), DTypeError; ValueError for an element that is not
/// finite, naming its codeword.
VectorQuantizationTables vector_quantization_tables(const Var& codebooks, const Var& bilinear,
                                                    const VectorQuantizationOptions& options = {});

/// Additive quantization of rows x [T, D] by B codebooks of W full-width codewords (LISA, arXiv 2105.14068, and
/// LightRec; "residual" quantization). With r^1 = x, for b = 1 ... B:
///
///   l^b_w = similarity(r^b, c^b_w)     p^b = softmax(l^b / temperature)     z^b = argmax_w l^b_w
///   y^b = onehot(z^b) + p^b - stopped(p^b), or p^b when soft     r^(b+1) = r^b - sum_w y^b_w c^b_w
///
/// The reconstruction is sum_b sum_w y^b_w c^b_w. The passes of G codebooks that go together, from g + 1 on, share one
/// matrix product, r^(g+1) against their G * W projected codewords; a pass then subtracts rows of `products`, as
/// (r^b)^T k = (r^(g+1))^T k - sum_(g < a < b) c^a_(z^a)^T k (for soft assignments products of W x W tables). So B W D
/// operations and (B G W / 2 + B D) subtractions a row, from tables that fit a cache. Codes are those of exact
/// arithmetic unless two similarities differ by less than rounding.
///
/// Gradients reach x, codebooks, `projected`, `products` and `bias` from the reconstruction and from the logits. Logits
/// of squared_distance lack -||r||^2 / temperature, a constant of each row and codebook, and their gradient lacks it
/// too: no difference to any softmax of them. Backward makes one pass b = B ... 1 over tiles of rows. Keeps all inputs,
/// logits and codes. The same bits for any number of threads. Throws ShapeError, DTypeError; ValueError for a
/// temperature that is not above 0, or a row of x that is not finite (naming it).
VectorQuantization vector_quantization(const Var& x, const VectorQuantizationTables& tables,
                                       const VectorQuantizationOptions& options = {});
/// The same, tables included. `bilinear` is M, undefined for other similarities.
VectorQuantization vector_quantization(const Var& x, const Var& codebooks, const Var& bilinear,
                                       const VectorQuantizationOptions& options = {});

/// The codes alone [T, B], hard assignments, for serving: keeps nothing of size T except the result. The same codes as
/// vector_quantization() gives. Throws as it does.
Tensor encode_codes(const Tensor& x, const VectorQuantizationTables& tables,
                    const VectorQuantizationOptions& options = {});

}  // namespace tally::ops
