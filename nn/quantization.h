#pragma once

#include "tally/nn/codebook_statistics.h"
#include "tally/nn/kmeans.h"
#include "tally/nn/module.h"
#include "tally/ops/quantization/vector_quantization.h"

namespace tally::nn {

struct VectorQuantizerOptions {
  std::int64_t codebooks = 8;
  std::int64_t codewords = 128;
  std::int64_t width = 0;  ///< of the rows that are quantized
  ops::VectorQuantizationOptions quantization = {};
  /// A trained number added to each codeword's similarity, 0 at first: the term <w2, c> of LightRec's similarity
  /// x^T W c + <w1, x> + <w2, c> with a weight for each codeword. Not for product codebooks.
  bool codeword_bias = false;
  bool product = false;      ///< a codebook for each part of the columns; similarity dot or squared_distance
  bool count_usage = false;  ///< keep count of how often each codeword is chosen in training
  bool averaged = false;     ///< codewords are moving averages of what they encode instead of being trained; hard only
  double decay = 0.99;       ///< of these averages, per training step
  double smoothing = 1e-5;   ///< added to each codeword's count, relative to the total (Laplace)
};

/// Quantizes rows by codebooks of its own (ops/quantization/vector_quantization.h,
/// ops/quantization/product_quantization.h).
///
/// A call with a context of training posts the counts of the codes to it, when they are kept. With `averaged` codebooks
/// (van den Oord et al., arXiv 1711.00937, appendix A.1) it posts, for the n_w rows r that chose codeword w,
///
///   N_w <- decay N_w + (1 - decay) n_w     m_w <- decay m_w + (1 - decay) sum r     c_w = m_w / N'_w
///   N'_w = (N_w + smoothing) / (N + codewords * smoothing) * N, N = sum_w N_w
///
/// where r is what the codeword encoded (of the row, what earlier codebooks left over). Averages decay with the shard
/// whose first row is the batch's first, so they do not depend on how the batch was cut, as long as a step calls the
/// quantizer once for each shard.
struct VectorQuantizer {
  VectorQuantizerOptions options;
  Parameter codebooks;                  ///< [books, words, width], or width / books for product; absent with averages
  Parameter bilinear;                   ///< [width, width], for bilinear similarity
  Parameter bias;                       ///< [books * words], with codeword_bias
  Buffer averages;                      ///< the codebooks, when they are averages
  Buffer average_counts, average_sums;  ///< [books, words] and like the codebooks
  Buffer usage;                         ///< i64 [books, words] rows that chose a codeword since reset_usage()
  static constexpr void fields(auto& self, auto&& visit) {
    visit("options", self.options);
    visit("codebooks", self.codebooks);
    visit("bilinear", self.bilinear);
    visit("bias", self.bias);
    visit("averages", self.averages);
    visit("average_counts", self.average_counts);
    visit("average_sums", self.average_sums);
    visit("usage", self.usage);
  }
  /// Codebooks and M are normal with Xavier's deviation, as LISA begins. Throws ValueError for options that do not fit
  /// together.
  static VectorQuantizer make(const VectorQuantizerOptions& options, RngKey key);

  /// What depends on parameters alone; the same for all shards of a step.
  ops::VectorQuantizationTables tables() const;
  ops::VectorQuantization operator()(const Var& x, const ops::VectorQuantizationTables& prepared,
                                     const Context& context = {}) const;
  ops::VectorQuantization operator()(const Var& x, const Context& context = {}) const {
    return (*this)(x, tables(), context);
  }
  /// Codes [T, B] alone, and rows [T, D] from codes: what serving stores and reads.
  Tensor encode(const Tensor& x) const;
  Var decode(const Tensor& codes) const;

  /// The codebooks, trained or averaged.
  Var codewords() const { return averages.defined() ? Var(averages.value()) : codebooks.var(); }
  Tensor& mutable_codewords() { return averages.defined() ? averages.mutable_value() : codebooks.mutable_value(); }

  /// Codebooks by k-means (nn/kmeans.h) over rows x [T, D]: of what is left over, of the whole rows for each, or of
  /// parts. The nearest codeword counts, whatever the similarity.
  void initialize(const Tensor& x, RngKey key, const KMeansOptions& kmeans = {});
  /// exp of the entropy of each codebook's usage. This and what follows throw ValueError unless usage is counted.
  std::vector<double> perplexity() const;
  /// Number of codewords chosen less than `least` times since reset_usage().
  std::int64_t count_dead(std::int64_t least = 1) const;
  /// Replaces these codewords by rows of x [T, D] (what is left over of them, or their parts), drawn by the key
  /// without repetition while there are enough; then resets usage. Returns how many. Throws ValueError for no rows.
  std::int64_t refresh_dead(const Tensor& x, RngKey key, std::int64_t least = 1);
  void reset_usage();
};

}  // namespace tally::nn
