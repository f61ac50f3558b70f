#pragma once

#include <cmath>
#include <numeric>
#include <vector>

#include "tally/nn/attention/histogram.h"
#include "tally/nn/layers.h"

// Rows in double for the definitions of attentions, and the definition of attention by codewords.

namespace tally::attention_samples {

using Rows = std::vector<std::vector<double>>;

inline constexpr std::int64_t kWidth = 8, kHeads = 2;

/// Of events, in seconds: minutes, hours and days apart, some at once.
inline std::vector<double> times(std::int64_t count) {
  std::vector<double> all;
  double now = 1e9;
  for (std::int64_t t = 0; t < count; ++t) {
    all.push_back(now);
    now += t % 5 == 3 ? 0 : std::floor(60 * std::exp(static_cast<double>(t * 7 % 11)));
  }
  return all;
}

inline Rows rows_of(const Tensor& tensor) {
  const std::vector<double> all = tensor.to_doubles();
  const auto columns = static_cast<std::ptrdiff_t>(tensor.dim(tensor.rank() - 1));
  Rows rows;
  for (auto at = all.begin(); at != all.end(); at += columns) rows.emplace_back(at, at + columns);
  return rows;
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

inline std::vector<double> linear(const nn::Linear& layer, const std::vector<double>& x) {
  std::vector<double> y = layer.bias.value().to_doubles();
  const Rows weight = rows_of(layer.weight.value());
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += dot(weight[i], x);
  return y;
}

/// Codes by residual passes, then every earlier codeword is a key whose weight falls with its age.
inline Rows by_codewords(const nn::HistogramKind& kind, const Tensor& source, double decay) {
  const Rows given = rows_of(source), words = rows_of(kind.quantizer.codebooks.value()),
             bilinear = rows_of(kind.quantizer.bilinear.value());
  const Rows wq = rows_of(kind.histogram.query.value()), wk = rows_of(kind.histogram.key.value()),
             wv = rows_of(kind.histogram.value.value());
  const auto times = [](const std::vector<double>& x, const Rows& m, std::size_t first) {
    std::vector<double> y(kWidth, 0);
    for (std::size_t i = 0; i < kWidth; ++i) {
      for (std::size_t j = 0; j < kWidth; ++j) y[j] += x[i] * m[first + i][j];
    }
    return y;
  };
  const std::size_t books = 3, count = 4;
  std::vector<std::vector<std::size_t>> codes;
  Rows out;
  for (std::vector<double> rest : given) {
    std::vector<std::size_t>& row_codes = codes.emplace_back();
    for (std::size_t b = 0; b < books; ++b) {
      const std::vector<double> query = times(rest, bilinear, 0);
      std::size_t best = b * count;
      for (std::size_t w = b * count; w < (b + 1) * count; ++w) {
        if (dot(query, words[w]) > dot(query, words[best])) best = w;
      }
      for (std::size_t i = 0; i < kWidth; ++i) rest[i] -= words[best][i];
      row_codes.push_back(best);
    }
    std::vector<double> row(kWidth, 0);
    for (std::size_t b = 0; b < books; ++b) {
      const std::vector<double> query = times(words[row_codes[b]], wq, b * kWidth);
      std::vector<double> sums(kWidth, 0);
      double total = 0;
      for (std::size_t j = 0; j < codes.size(); ++j) {
        const std::vector<double>& word = words[codes[j][b]];
        const double weight = std::exp(dot(query, times(word, wk, b * kWidth)) / std::sqrt(double{kWidth}) -
                                       decay * static_cast<double>(codes.size() - 1 - j));
        const std::vector<double> value = times(word, wv, b * kWidth);
        total += weight;
        for (std::size_t i = 0; i < kWidth; ++i) sums[i] += weight * value[i];
      }
      for (std::size_t i = 0; i < kWidth; ++i) row[i] += sums[i] / total;
    }
    out.push_back(row);
  }
  return out;
}

}  // namespace tally::attention_samples
