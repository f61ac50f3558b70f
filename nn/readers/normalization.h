#pragma once

#include "tally/core/options/options.h"
#include "tally/core/words.h"
#include "tally/nn/readers/kind.h"

namespace tally::nn {

/// What is done to answers that are sums over the rows of a document: they grow with it, so that those to a long one
/// leave the range in which the layer above learns. How the papers met this is not known.
enum class ReaderNormalization {
  none,
  length,  ///< divided by the number of rows seen, which makes the sum a mean: still linear in the query
  rms,     ///< brought to a root mean square of 1
};
constexpr auto words(ReaderNormalization) {
  using W = Word<ReaderNormalization>;
  return std::array{W{"none", ReaderNormalization::none}, W{"length", ReaderNormalization::length},
                    W{"rms", ReaderNormalization::rms}};
}

struct ReaderNormalizationOptions {
  ReaderNormalization normalization = ReaderNormalization::rms;
  static void keys(auto& o, auto&& key) {
    key("reader_normalization", o.normalization,
        "of answers that are sums over a document: `length` divides them by the rows seen, `rms` by their root mean "
        "square");
  }
};

Var normalized(const Var& answers, ReaderNormalization normalization, const Lookups& lookups);

}  // namespace tally::nn
