#pragma once

#include <cmath>

#include "tally/nn/attention/recgrela.h"
#include "tests/nn/dispatcher_definition.h"

namespace tally::testing {

/// Rows of one sequence through nn::RecGrelaKind as it is written, in double loops.
inline Rows recgrela_by_definition(const nn::RecGrelaKind& kind, const Tensor& queries, const Tensor& source) {
  const auto features = [](const nn::Linear& layer, const Rows& x) {
    Rows y = linear_rows(layer, x);
    for (auto& row : y) {
      for (double& value : row) value = value > 0 ? value + 1 : std::exp(value);
    }
    return y;
  };
  const auto turned = [](const Rows& x) {
    Rows y = x;
    for (std::size_t t = 0; t < x.size(); ++t) {
      for (std::size_t i = 0; i < x[t].size(); i += 2) {
        const double angle =
            static_cast<double>(t) * std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(x[t].size()));
        y[t][i] = x[t][i] * std::cos(angle) - x[t][i + 1] * std::sin(angle);
        y[t][i + 1] = x[t][i + 1] * std::cos(angle) + x[t][i] * std::sin(angle);
      }
    }
    return y;
  };
  const Rows given = linear_rows(kind.input, rows_in_double(source)),
             q = features(kind.query, linear_rows(kind.input, rows_in_double(queries))), k = features(kind.key, given),
             turned_q = turned(q), turned_k = turned(k), gate = linear_rows(kind.gate, rows_in_double(queries)),
             taps = rows_in_double(kind.shortcut_weight.value());
  const std::vector<double> bias = kind.shortcut_bias.value().to_doubles();
  const std::size_t width = bias.size(), d = width / static_cast<std::size_t>(kind.heads);
  Rows out;
  for (std::size_t t = 0; t < q.size(); ++t) {
    const std::size_t seen = kind.mask == ops::AttentionMask::causal ? t + 1 : given.size();
    std::vector<double> row(width);
    for (std::size_t c = 0; c < width; ++c) {
      const std::size_t first = c / d * d;
      double numerator = 0, denominator = 0;
      for (std::size_t j = 0; j < seen; ++j) {
        double turned_product = 0, product = 0;
        for (std::size_t i = first; i < first + d; ++i) {
          turned_product += turned_q[t][i] * turned_k[j][i];
          product += q[t][i] * k[j][i];
        }
        numerator += turned_product * given[j][c];
        denominator += product;
      }
      double nearby = bias[c];
      for (std::size_t i = 0; i < taps[c].size(); ++i) {
        if (t + i + 1 >= taps[c].size()) nearby += taps[c][i] * given[t + i + 1 - taps[c].size()][c];
      }
      if (kind.shortcut_activation == ops::Activation::silu) nearby /= 1 + std::exp(-nearby);
      row[c] = (numerator / denominator + nearby) * gate[t][c] / (1 + std::exp(-gate[t][c]));
    }
    out.push_back(row);
  }
  return linear_rows(kind.output, out);
}

}  // namespace tally::testing
