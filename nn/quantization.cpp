#include "tally/nn/quantization.h"

#include <cmath>

#include "tally/nn/initializers.h"

namespace tally::nn {

VectorQuantizer VectorQuantizer::make(const VectorQuantizerOptions& options, RngKey key) {
  check<ValueError>(options.codebooks >= 1 && options.codewords >= 1 && options.width >= 1, "VectorQuantizer",
                    "needs at least one codebook, codeword and column");
  check<ValueError>(options.quantization.temperature > 0, "VectorQuantizer", "needs a temperature above 0");
  const std::int64_t d = options.width;
  const double deviation = std::sqrt(2.0 / static_cast<double>(d * (options.codewords + options.codebooks)));
  VectorQuantizer q{Parameter(normal({options.codebooks, options.codewords, d}, deviation, key.fold_in("codebooks"))),
                    {},
                    options.quantization};
  if (options.quantization.similarity == ops::CodewordSimilarity::bilinear) {
    q.bilinear = Parameter(normal({d, d}, std::sqrt(1.0 / static_cast<double>(d)), key.fold_in("bilinear")));
  }
  return q;
}

ops::VectorQuantizationTables VectorQuantizer::tables() const {
  return ops::vector_quantization_tables(codebooks, bilinear, options);
}

ops::VectorQuantization VectorQuantizer::operator()(const Var& x, const ops::VectorQuantizationTables& prepared) const {
  return ops::vector_quantization(x, prepared, options);
}

}  // namespace tally::nn
