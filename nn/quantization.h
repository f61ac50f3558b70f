#pragma once

#include "tally/nn/module.h"
#include "tally/ops/vector_quantization.h"

namespace tally::nn {

struct VectorQuantizerOptions {
  std::int64_t codebooks = 8;
  std::int64_t codewords = 128;
  std::int64_t width = 0;
  ops::VectorQuantizationOptions quantization = {};
};

/// Additive quantization with codebooks of its own.
struct VectorQuantizer {
  Parameter codebooks;  ///< [B, W, D]
  Parameter bilinear;   ///< [D, D], absent unless the similarity is bilinear
  ops::VectorQuantizationOptions options;
  static void fields(auto& self, auto&& visit) {
    visit("codebooks", self.codebooks);
    visit("bilinear", self.bilinear);
    visit("options", self.options);
  }
  static VectorQuantizer make(const VectorQuantizerOptions& options, RngKey key);
  ops::VectorQuantizationTables tables() const;
  ops::VectorQuantization operator()(const Var& x) const { return (*this)(x, tables()); }
  ops::VectorQuantization operator()(const Var& x, const ops::VectorQuantizationTables& prepared) const;
};

}  // namespace tally::nn
