#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "tally/recsys/models/lisa.h"

/// A small LISA in double, and the parts of its equations as plain loops.
namespace tally::recsys::lisa_samples {

using Matrix = std::vector<std::vector<double>>;

inline LisaOptions small(LisaVariant variant) {
  LisaOptions options;
  options.items = 11;
  options.width = 6;
  options.window = 9;
  options.variant = variant;
  options.codebooks = 3;
  options.codewords = 4;
  options.target_codewords = 5;
  return options;
}

/// A model in double precision with weights of ordinary size, so that nothing hides in small numbers.
inline Lisa make_double(const LisaOptions& options) {
  Lisa model = Lisa::make(options, RngKey{17});
  std::uint64_t stream = 0;
  for (auto& [path, tensor] : nn::state(model)) {
    if (!is_floating(tensor->dtype())) continue;
    Tensor noise(tensor->shape(), DType::f64);
    fill_normal(RngKey{3}.fold_in(stream++), noise, 0, 0.4);
    *tensor = tensor->to(DType::f64).clone();
    auto values = tensor->mutable_span<double>();
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += noise.data<double>()[i];
  }
  return model;
}

inline Sequences some_histories() {
  return Sequences::from({{3, 1, 4, 1, 5}, {}, {9}, {2, 6, 5, 3, 5, 8, 10, 0, 7}}, 11);
}

inline Var encode(const Lisa& model, const Sequences& batch) {
  const BatchItems all = BatchItems::all(11);
  return model.encode(batch, model.prepare(all), {});
}

inline Matrix matrix(const Tensor& tensor) {
  const std::vector<double> values = tensor.to_doubles();
  const auto columns = static_cast<std::size_t>(tensor.dim(tensor.rank() - 1));
  Matrix rows;
  for (std::size_t begin = 0; begin < values.size(); begin += columns) {
    rows.emplace_back(values.begin() + static_cast<std::ptrdiff_t>(begin),
                      values.begin() + static_cast<std::ptrdiff_t>(begin + columns));
  }
  return rows;
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

/// a row times matrix rows [first, first + size).
inline std::vector<double> times(const std::vector<double>& row, const Matrix& m, std::size_t first = 0) {
  std::vector<double> out(m[0].size(), 0);
  for (std::size_t i = 0; i < row.size(); ++i) {
    for (std::size_t j = 0; j < out.size(); ++j) out[j] += row[i] * m[first + i][j];
  }
  return out;
}

inline std::vector<double> layer_norm(std::vector<double> x, const nn::LayerNorm& norm) {
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
  double variance = 0;
  for (const double value : x) variance += (value - mean) * (value - mean) / static_cast<double>(x.size());
  const std::vector<double> weight = norm.weight.value().to_doubles(), bias = norm.bias.value().to_doubles();
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = (x[i] - mean) / std::sqrt(variance + norm.epsilon) * weight[i] + bias[i];
  }
  return x;
}

/// Codes and reconstruction of one vector by residual passes of full width.
struct Encoded {
  std::vector<std::size_t> codes;
  std::vector<double> reconstruction;
};

inline Encoded encode_vector(const std::vector<double>& x, const nn::VectorQuantizer& quantizer,
                             std::size_t codewords) {
  const Matrix codebooks = matrix(quantizer.codebooks.value()), bilinear = matrix(quantizer.bilinear.value());
  Encoded result{{}, std::vector<double>(x.size(), 0)};
  std::vector<double> rest = x;
  for (std::size_t b = 0; b < codebooks.size() / codewords; ++b) {
    const std::vector<double> query = times(rest, bilinear);
    std::size_t best = 0;
    for (std::size_t w = 1; w < codewords; ++w) {
      if (dot(query, codebooks[b * codewords + w]) > dot(query, codebooks[b * codewords + best])) best = w;
    }
    result.codes.push_back(best);
    for (std::size_t i = 0; i < x.size(); ++i) {
      rest[i] -= codebooks[b * codewords + best][i];
      result.reconstruction[i] += codebooks[b * codewords + best][i];
    }
  }
  return result;
}

}  // namespace tally::recsys::lisa_samples
