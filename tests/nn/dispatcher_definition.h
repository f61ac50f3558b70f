#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "tally/nn/attention/dispatcher.h"

// The layer of nn::DispatcherKind as it is written, in double loops.

namespace tally::testing {

using Rows = std::vector<std::vector<double>>;

inline Rows rows_in_double(const Tensor& x) {
  const std::vector<double> all = x.to_doubles();
  const auto columns = static_cast<std::ptrdiff_t>(x.dim(x.rank() - 1));
  Rows rows;
  for (auto at = all.begin(); at != all.end(); at += columns) rows.emplace_back(at, at + columns);
  return rows;
}

/// x times a matrix [in, out], or with blocks [heads, in, out] on its diagonal.
inline Rows times(const Rows& x, const Tensor& matrix) {
  const Rows m = rows_in_double(matrix);
  const auto blocks = static_cast<std::size_t>(matrix.rank() == 3 ? matrix.dim(0) : 1);
  const std::size_t in = m.size() / blocks, out = m[0].size();
  Rows y;
  for (const auto& row : x) {
    auto& to = y.emplace_back(blocks * out);
    for (std::size_t i = 0; i < row.size(); ++i) {
      for (std::size_t j = 0; j < out; ++j) to[i / in * out + j] += row[i] * m[i][j];
    }
  }
  return y;
}

inline Rows linear_rows(const nn::Linear& layer, const Rows& x) {
  const Rows weight = rows_in_double(layer.weight.value());
  Rows y;
  for (const auto& row : x) {
    auto& to = y.emplace_back(layer.bias.defined() ? layer.bias.value().to_doubles()
                                                   : std::vector<double>(weight.size(), 0.0));
    for (std::size_t i = 0; i < to.size(); ++i) {
      for (std::size_t j = 0; j < row.size(); ++j) to[i] += weight[i][j] * row[j];
    }
  }
  return y;
}

/// Softmax attention head by head.
inline Rows attend(const Rows& queries, const Rows& keys, const Rows& values, std::size_t heads) {
  const std::size_t d = keys[0].size() / heads;
  Rows out;
  for (const auto& query : queries) {
    auto& to = out.emplace_back(values[0].size());
    for (std::size_t h = 0; h < heads; ++h) {
      std::vector<double> weights;
      double total = 0;
      for (const auto& key : keys) {
        double score = 0;
        for (std::size_t i = h * d; i < (h + 1) * d; ++i) score += query[i] * key[i];
        total += weights.emplace_back(std::exp(score / std::sqrt(static_cast<double>(d))));
      }
      for (std::size_t j = 0; j < values.size(); ++j) {
        for (std::size_t i = h * d; i < (h + 1) * d; ++i) to[i] += weights[j] / total * values[j][i];
      }
    }
  }
  return out;
}

/// Rows of one sequence, with experts [k, width]: a causal kind sees each prefix by itself.
inline Rows dispatched_by_definition(const nn::DispatcherKind& kind, const Tensor& queries, const Tensor& source,
                                     const Tensor& experts) {
  const auto heads = static_cast<std::size_t>(kind.heads);
  const Rows asked = linear_rows(kind.query, rows_in_double(queries)), x = rows_in_double(source),
             keys = linear_rows(kind.key, x), values = linear_rows(kind.value, x),
             of_experts = linear_rows(kind.expert_query, rows_in_double(experts));
  const bool causal = kind.mask == ops::AttentionMask::causal;
  Rows read;
  for (std::size_t t = 0; t < asked.size(); ++t) {
    const auto seen = static_cast<std::ptrdiff_t>(causal ? t + 1 : asked.size());
    const Rows gathered =
        attend(of_experts, Rows(keys.begin(), keys.begin() + seen), Rows(values.begin(), values.begin() + seen), heads);
    read.push_back(attend({asked[t]}, times(gathered, kind.expert_key.value()),
                          times(gathered, kind.expert_value.value()), heads)[0]);
  }
  return linear_rows(kind.output, read);
}

inline double largest_difference(const Rows& a, const Rows& b) {
  double most = a.size() == b.size() ? 0 : INFINITY;
  for (std::size_t t = 0; t < std::min(a.size(), b.size()); ++t) {
    for (std::size_t i = 0; i < a[t].size(); ++i) most = std::max(most, std::fabs(a[t][i] - b[t][i]));
  }
  return most;
}

}  // namespace tally::testing
