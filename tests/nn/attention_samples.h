#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/nn/attention_expected.h"
#include "tests/support/attention_choices.h"

// Attentions of the table with weights of ordinary size, and rows for them.

namespace tally::attention_samples {

/// As a layer holds it.
struct Holder {
  nn::Attention attention;
  static constexpr void fields(auto& self, auto&& visit) { visit("attention", self.attention); }
};

inline nn::AttentionSettings settings(bool causal = true) {
  return {.width = kWidth,
          .heads = kHeads,
          .mask = causal ? ops::AttentionMask::causal : ops::AttentionMask::bidirectional,
          .max_length = 40};
}

inline nn::AttentionChoice choice(const std::string& name, const nn::AttentionKinds& kinds = nn::attention_kinds()) {
  return attention_choice(kinds, name,
                          {{"attention_block", 5},
                           {"random_features", 7},
                           {"lsh_buckets", 4},
                           {"projected_keys", 2},
                           {"k_interests", 3},
                           {"lambda_window", 5},
                           {"memory_contexts", 3},
                           {"slots", 3},
                           {"codebooks", 3},
                           {"codewords", 4},
                           {"counts_decay", 0.1},
                           {"experts", 5}});
}

/// With weights of ordinary size.
inline Holder make(const std::string& name, bool causal = true) {
  Holder holder{nn::make_attention(choice(name), settings(causal), RngKey{4})};
  std::uint64_t stream = 0;
  for (auto& [path, parameter] : nn::parameters(holder)) {
    Tensor noise(parameter->shape());
    fill_normal(RngKey{6, stream++}, noise, 0, 0.4);
    auto values = parameter->mutable_value().mutable_span<float>();
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += noise.data<float>()[i];
  }
  return holder;
}

inline Tensor normal(std::int64_t rows, std::uint64_t stream) {
  Tensor x({rows, kWidth});
  fill_normal(RngKey{5, stream}, x, 0, 1);
  return x;
}

/// A sequence of so many events at those times.
inline nn::Sequence sequence_of(std::int64_t length) {
  return {Offsets::single(length), Tensor::from(times(length), {length})};
}

/// The largest difference, against the largest number of b where that is above 1.
inline double difference(const Rows& a, const Rows& b) {
  double most = a.size() == b.size() ? 0 : INFINITY, scale = 1;
  for (std::size_t t = 0; t < std::min(a.size(), b.size()); ++t) {
    for (std::size_t i = 0; i < a[t].size(); ++i) {
      most = std::max(most, std::fabs(a[t][i] - b[t][i]));
      scale = std::max(scale, std::fabs(b[t][i]));
    }
  }
  return most / scale;
}

}  // namespace tally::attention_samples
