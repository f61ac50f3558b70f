#pragma once

#include <string>

#include "tally/core/offsets.h"
#include "tally/nn/quantization.h"
#include "tally/recsys/models/elastic_options.h"

namespace tally::recsys {

/// Experts chosen by the tally of codewords: a history's rows are quantized as LISA quantizes them, and its k most
/// frequent codewords are its experts, each a trained row weighted by its share of the tally. Codebooks are moving
/// averages of the rows, and choosing has no gradient: routing is as stable as the codes, while values are trained.
/// (HiSAC routes by frozen codes and attends to trained values.)
struct CodeRouting {
  nn::VectorQuantizer quantizer;
  nn::Parameter values;  ///< [codebooks * codewords, width]
  std::int64_t experts = 0;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("quantizer", self.quantizer);
    visit("values", self.values);
    visit("experts", self.experts);
  }
  /// For k experts [width]. `deviation`: of initial values.
  static CodeRouting make(const RoutingOptions& options, std::int64_t experts, std::int64_t width, double deviation,
                          RngKey key);

  /// [N, k, width] of histories whose rows [T, width] these are; of an empty one, the first k with weights of 1. In
  /// training, codebooks follow the rows.
  /// `slots`, if given, becomes the rows with a weight, those of all histories: i64.
  Var operator()(const Tensor& rows, const Offsets& offsets, const nn::Context& context, Tensor* slots = nullptr) const;

  /// Share of the codewords that some row of the last epochs chose, and KL from their use to uniform use.
  double share_used() const;
  double divergence() const;
};

/// The k most frequent of `codewords` in each sequence of codes [T, B], counted over all codebooks: slots i64 [N, k] in
/// [0, B * codewords), most frequent first and the lower of equals first, and their counts f64 [N, k], which may be 0.
struct FrequentCodes {
  Tensor slots, counts;
};
FrequentCodes most_frequent(const Tensor& codes, std::int64_t codewords, const Offsets& offsets, std::int64_t k);

}  // namespace tally::recsys
