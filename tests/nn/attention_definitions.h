#pragma once

#include <cmath>

#include "tally/nn/attention/efficient.h"
#include "tally/nn/attention/fixed_memory.h"
#include "tally/nn/attention/galerkin.h"
#include "tally/nn/attention/hstu.h"
#include "tally/nn/attention/lambda.h"
#include "tally/nn/attention/multi_head.h"
#include "tests/nn/dispatcher_definition.h"

// Attentions as they are written, in double loops over one sequence.

namespace tally::testing {

inline double silu_of(double x) { return x / (1 + std::exp(-x)); }

/// The rows with silu applied to each element.
inline Rows silu_rows(Rows x) {
  for (auto& row : x) {
    for (double& value : row) value = silu_of(value);
  }
  return x;
}

/// To mean 0 and variance 1, of each part [begin, begin + width) of the rows.
inline Rows normed_rows(Rows x, std::size_t width, double epsilon) {
  for (auto& row : x) {
    for (std::size_t begin = 0; begin < row.size(); begin += width) {
      double mean = 0, variance = 0;
      for (std::size_t i = begin; i < begin + width; ++i) mean += row[i] / static_cast<double>(width);
      for (std::size_t i = begin; i < begin + width; ++i) {
        variance += (row[i] - mean) * (row[i] - mean) / static_cast<double>(width);
      }
      for (std::size_t i = begin; i < begin + width; ++i) row[i] = (row[i] - mean) / std::sqrt(variance + epsilon);
    }
  }
  return x;
}

inline Rows hstu_by_definition(const nn::HstuKind& kind, const Tensor& queries, const Tensor& source) {
  const Rows q = silu_rows(linear_rows(kind.query, rows_in_double(queries))),
             u = silu_rows(linear_rows(kind.gate, rows_in_double(queries))),
             k = silu_rows(linear_rows(kind.key, rows_in_double(source))),
             v = silu_rows(linear_rows(kind.value, rows_in_double(source)));
  const std::size_t width = q[0].size(), d = width / static_cast<std::size_t>(kind.heads);
  Rows found;
  for (std::size_t t = 0; t < q.size(); ++t) {
    const std::size_t seen = kind.mask == ops::AttentionMask::causal ? t + 1 : q.size();
    const double n = static_cast<double>(kind.window > 0 ? static_cast<std::size_t>(kind.window) : seen);
    auto& to = found.emplace_back(width);
    for (std::size_t j = 0; j < seen; ++j) {
      for (std::size_t first = 0; first < width; first += d) {
        double score = 0;
        for (std::size_t i = first; i < first + d; ++i) score += q[t][i] * k[j][i] / std::sqrt(static_cast<double>(d));
        for (std::size_t i = first; i < first + d; ++i) to[i] += silu_of(score) / n * v[j][i];
      }
    }
  }
  Rows gated = normed_rows(found, width, 1e-6);
  for (std::size_t t = 0; t < gated.size(); ++t) {
    for (std::size_t i = 0; i < width; ++i) gated[t][i] *= u[t][i];
  }
  return linear_rows(kind.output, gated);
}

/// Softmax of each part [begin, begin + width) of the rows.
inline Rows softmaxed_rows(Rows x, std::size_t width) {
  for (auto& row : x) {
    for (std::size_t begin = 0; begin < row.size(); begin += width) {
      double total = 0;
      for (std::size_t i = begin; i < begin + width; ++i) total += row[i] = std::exp(row[i]);
      for (std::size_t i = begin; i < begin + width; ++i) row[i] /= total;
    }
  }
  return x;
}

/// Of each head sum_c q_tc (sum_j w_jc v_j / sum_j w_jc) over the visible rows j, for weights w of keys above 0; heads
/// of queries share the heads of keys evenly.
inline Rows weighted_means(const Rows& q, const Rows& w, const Rows& v, std::size_t heads, std::size_t key_heads,
                           bool causal) {
  const std::size_t d = w[0].size() / key_heads, e = v[0].size() / key_heads;
  Rows out;
  for (std::size_t t = 0; t < q.size(); ++t) {
    auto& to = out.emplace_back(heads * e);
    const std::size_t seen = causal ? t + 1 : q.size();
    for (std::size_t h = 0; h < heads; ++h) {
      const std::size_t of_keys = h / (heads / key_heads);
      for (std::size_t c = 0; c < d; ++c) {
        double total = 0;
        for (std::size_t j = 0; j < seen; ++j) total += w[j][of_keys * d + c];
        for (std::size_t j = 0; j < seen; ++j) {
          const double weight = q[t][h * d + c] * w[j][of_keys * d + c] / total;
          for (std::size_t i = 0; i < e; ++i) to[h * e + i] += weight * v[j][of_keys * e + i];
        }
      }
    }
  }
  return out;
}

inline Rows exp_rows(Rows x) {
  for (auto& row : x) {
    for (double& value : row) value = std::exp(value);
  }
  return x;
}

inline Rows efficient_by_definition(const nn::MultiHead<nn::EfficientCore>& kind, const Tensor& queries,
                                    const Tensor& source) {
  const auto heads = static_cast<std::size_t>(kind.attention.heads);
  const Rows q = linear_rows(kind.query, rows_in_double(queries));
  return linear_rows(kind.output, weighted_means(softmaxed_rows(q, q[0].size() / heads),
                                                 exp_rows(linear_rows(kind.key, rows_in_double(source))),
                                                 linear_rows(kind.value, rows_in_double(source)), heads, heads,
                                                 kind.attention.mask == ops::AttentionMask::causal));
}

/// As nn::RmsNorm, on each part of the rows that is as wide as its weight; as they are where it has none.
inline Rows rms_rows(const nn::RmsNorm& norm, Rows x) {
  if (!norm.weight.defined()) return x;
  const std::vector<double> weight = norm.weight.value().to_doubles();
  const std::size_t width = weight.size();
  for (auto& row : x) {
    for (std::size_t begin = 0; begin < row.size(); begin += width) {
      double squares = 0;
      for (std::size_t i = begin; i < begin + width; ++i) squares += row[i] * row[i] / static_cast<double>(width);
      for (std::size_t i = begin; i < begin + width; ++i)
        row[i] *= weight[i - begin] / std::sqrt(squares + norm.epsilon);
    }
  }
  return x;
}

inline Rows lambda_by_definition(const nn::LambdaKind& kind, const Tensor& queries, const Tensor& source) {
  const auto heads = static_cast<std::size_t>(kind.heads);
  const bool causal = kind.mask == ops::AttentionMask::causal;
  const Rows q = rms_rows(kind.query_norm, linear_rows(kind.query, rows_in_double(queries))),
             k = linear_rows(kind.key, rows_in_double(source)),
             v = rms_rows(kind.value_norm, linear_rows(kind.value, rows_in_double(source))),
             e = rows_in_double(kind.positions.value());
  const std::size_t d = k[0].size();
  const auto length = static_cast<std::int64_t>(q.size()), taps = static_cast<std::int64_t>(e.size());
  Rows y = weighted_means(q, exp_rows(k), v, heads, 1, causal);
  for (std::int64_t t = 0; t < length; ++t) {
    for (std::int64_t i = 0; i < taps; ++i) {
      // Both ways, the middle of the table is the row itself.
      const std::int64_t seen = t - i + (causal ? 0 : taps / 2);
      if (seen < 0 || seen >= length) continue;
      for (std::size_t h = 0; h < heads; ++h) {
        double weight = 0;
        for (std::size_t c = 0; c < d; ++c) {
          weight += q[static_cast<std::size_t>(t)][h * d + c] * e[static_cast<std::size_t>(i)][c];
        }
        for (std::size_t c = 0; c < d; ++c) {
          y[static_cast<std::size_t>(t)][h * d + c] += weight * v[static_cast<std::size_t>(seen)][c];
        }
      }
    }
  }
  return linear_rows(kind.output, y);
}

inline Rows galerkin_by_definition(const nn::MultiHead<nn::GalerkinCore>& kind, const Tensor& queries,
                                   const Tensor& source) {
  const nn::GalerkinCore& core = kind.attention;
  const auto normed = [&](const nn::Linear& layer, const nn::Parameter& weight, const nn::Parameter& bias) {
    Rows x = linear_rows(layer, rows_in_double(source));
    const std::vector<double> w = weight.value().to_doubles(), b = bias.value().to_doubles();
    x = normed_rows(x, w.size() / static_cast<std::size_t>(core.heads), 1e-5);
    for (auto& row : x) {
      for (std::size_t i = 0; i < row.size(); ++i) row[i] = row[i] * w[i] + b[i];
    }
    return x;
  };
  const Rows q = linear_rows(kind.query, rows_in_double(queries)), k = normed(kind.key, core.key_weight, core.key_bias),
             v = normed(kind.value, core.value_weight, core.value_bias);
  const std::size_t width = q[0].size(), d = width / static_cast<std::size_t>(core.heads);
  Rows y;
  for (std::size_t t = 0; t < q.size(); ++t) {
    auto& to = y.emplace_back(width);
    const std::size_t seen = core.mask == ops::AttentionMask::causal ? t + 1 : q.size();
    for (std::size_t j = 0; j < seen; ++j) {
      for (std::size_t first = 0; first < width; first += d) {
        double product = 0;
        for (std::size_t i = first; i < first + d; ++i) product += q[t][i] * k[j][i] / static_cast<double>(seen);
        for (std::size_t i = first; i < first + d; ++i) to[i] += product * v[j][i];
      }
    }
  }
  return linear_rows(kind.output, y);
}

inline Rows fixed_memory_by_definition(const nn::FixedMemoryKind& kind, const Tensor& queries, const Tensor& source) {
  const Rows given = rows_in_double(source), shares = linear_rows(kind.memory, given);
  const auto heads = static_cast<std::size_t>(kind.heads);
  const std::size_t contexts = shares[0].size() / heads;
  return linear_rows(kind.output,
                     weighted_means(softmaxed_rows(linear_rows(kind.read, rows_in_double(queries)), contexts),
                                    softmaxed_rows(shares, contexts), linear_rows(kind.value, given), heads, heads,
                                    kind.mask == ops::AttentionMask::causal));
}

}  // namespace tally::testing
