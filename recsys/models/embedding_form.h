#pragma once

#include <cmath>
#include <string>

#include "tally/core/options/options.h"
#include "tally/nn/layers.h"

namespace tally::recsys {

/// What models in SASRec's frame do with embeddings: as the paper, or as RecBole, which normalises and does not scale.
struct EmbeddingForm {
  bool normalised = false;  ///< by the model's norm, in place of the last block's rows
  bool scaled = true;       ///< items times sqrt(width)
  static constexpr void fields(auto& self, auto&& visit) {
    visit("normalised", self.normalised);
    visit("scaled", self.scaled);
  }
  static void keys(auto& o, auto&& key) {
    key("embedding_norm", o.normalised, "normalise embeddings, in place of the last block's rows (RecBole)");
    key("scale_embeddings", o.scaled, "multiply item embeddings by sqrt(hidden_size); RecBole does not");
  }

  double scale(std::int64_t width) const { return scaled ? std::sqrt(static_cast<double>(width)) : 1; }
  /// Of embedded rows and of the last block's.
  Var embedded(const nn::LayerNorm& norm, const Var& x) const { return normalised ? norm(x) : x; }
  Var finished(const nn::LayerNorm& norm, const Var& x) const { return normalised ? x : norm(x); }
  /// In words, where it is not the paper's.
  std::string layout() const {
    return std::string(normalised ? "embeddings normalised, " : "") + (scaled ? "" : "embeddings not scaled, ");
  }
};

}  // namespace tally::recsys
