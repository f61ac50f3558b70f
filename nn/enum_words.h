#pragma once

#include <string>
#include <vector>

#include "tally/nn/transformer.h"
#include "tally/ops/linear.h"
#include "tally/ops/vector_quantization.h"

namespace tally::nn {

/// The words of an enum in served files and in the layouts of states, in the order of its values. Words are file
/// formats: an enum may get further values, at its end, and none may change.
inline const std::vector<std::string>& words_of(ops::Activation) {
  static const std::vector<std::string> words{"none", "relu", "gelu", "silu"};
  return words;
}
inline const std::vector<std::string>& words_of(ops::CodewordSimilarity) {
  static const std::vector<std::string> words{"bilinear", "dot", "squared_distance"};
  return words;
}
inline const std::vector<std::string>& words_of(NormPlacement) {
  static const std::vector<std::string> words{"pre", "post", "sasrec"};
  return words;
}

static_assert(static_cast<int>(ops::Activation::none) == 0 && static_cast<int>(ops::Activation::relu) == 1 &&
              static_cast<int>(ops::Activation::gelu) == 2 && static_cast<int>(ops::Activation::silu) == 3);
static_assert(static_cast<int>(ops::CodewordSimilarity::bilinear) == 0 &&
              static_cast<int>(ops::CodewordSimilarity::dot) == 1 &&
              static_cast<int>(ops::CodewordSimilarity::squared_distance) == 2);
static_assert(static_cast<int>(NormPlacement::pre) == 0 && static_cast<int>(NormPlacement::post) == 1 &&
              static_cast<int>(NormPlacement::sasrec) == 2);

template <class Enum>
const std::string& word_of(Enum value) {
  return words_of(value).at(static_cast<std::size_t>(value));
}

}  // namespace tally::nn
