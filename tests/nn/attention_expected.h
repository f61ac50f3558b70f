#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "tally/nn/attention/attention.h"
#include "tally/nn/attention/attention_kinds.h"
#include "tally/nn/attention/dispatcher.h"
#include "tally/nn/attention/histogram.h"
#include "tally/nn/attention/lightsans.h"
#include "tally/nn/attention/linear.h"
#include "tally/nn/attention/linrec.h"
#include "tally/nn/attention/multi_head.h"
#include "tally/nn/attention/softmax.h"
#include "tests/nn/attention_definitions.h"
#include "tests/nn/codeword_definition.h"
#include "tests/nn/gated_slot_definition.h"
#include "tests/nn/linear_memory_definition.h"
#include "tests/nn/recgrela_definition.h"

// What the definition of each attention of the table gives, in double loops.

namespace tally::attention_samples {

/// A row's output where each earlier key (the row's own included) has a weight above 0 for the query of a head.
using Weigh = std::function<double(const std::vector<double>& query, const std::vector<double>& key, std::size_t age)>;

template <class Core>
Rows by_weights(const nn::MultiHead<Core>& kind, const Tensor& queries, const Tensor& source, const Weigh& weigh) {
  const Rows asked = rows_of(queries), given = rows_of(source);
  const std::size_t d = kWidth / kHeads;
  Rows out;
  for (std::size_t t = 0; t < asked.size(); ++t) {
    const std::vector<double> query = linear(kind.query, asked[t]);
    std::vector<double> sums(kWidth, 0), totals(kHeads, 0);
    for (std::size_t j = 0; j <= t; ++j) {
      const std::vector<double> key = linear(kind.key, given[j]), value = linear(kind.value, given[j]);
      for (std::size_t h = 0; h < kHeads; ++h) {
        const auto part = [&](const std::vector<double>& all) {
          return std::vector<double>(all.begin() + static_cast<std::ptrdiff_t>(h * d),
                                     all.begin() + static_cast<std::ptrdiff_t>((h + 1) * d));
        };
        const double weight = weigh(part(query), part(key), t - j);
        totals[h] += weight;
        for (std::size_t i = h * d; i < (h + 1) * d; ++i) sums[i] += weight * value[i];
      }
    }
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] /= totals[i / d];
    out.push_back(linear(kind.output, sums));
  }
  return out;
}

inline double softmax_weight(const std::vector<double>& query, const std::vector<double>& key) {
  return std::exp(dot(query, key) / std::sqrt(static_cast<double>(query.size())));
}

inline double elu_weight(const std::vector<double>& query, const std::vector<double>& key) {
  const auto feature = [](double x) { return x > 0 ? x + 1 : std::exp(x); };
  double sum = 0;
  for (std::size_t i = 0; i < query.size(); ++i) sum += feature(query[i]) * feature(key[i]);
  return sum;
}

inline double favor_weight(const Rows& directions, const std::vector<double>& query, const std::vector<double>& key) {
  const double root = std::pow(static_cast<double>(query.size()), -0.25);
  const auto feature = [&](const std::vector<double>& w, const std::vector<double>& x) {
    return std::exp(root * dot(w, x) - root * root * dot(x, x) / 2);
  };
  double sum = 0;
  for (const std::vector<double>& w : directions) sum += feature(w, query) * feature(w, key);
  return sum;
}

/// LinRec over the rows so far, or all: products of elu features of length 1, by the token or by the column.
inline Rows by_products(const nn::MultiHead<nn::LinRecCore>& kind, const Tensor& queries, const Tensor& source) {
  const Rows asked = rows_of(queries), given = rows_of(source);
  const std::size_t d = kWidth / kHeads;
  const bool causal = kind.attention.mask == ops::AttentionMask::causal,
             by_column = kind.attention.keys_by == nn::LinRecKeys::column;
  const auto features = [](const nn::Linear& layer, const std::vector<double>& x) {
    std::vector<double> y = linear(layer, x);
    for (double& value : y) value = value > 0 ? value : std::exp(value) - 1;
    return y;
  };
  Rows out;
  for (std::size_t t = 0; t < asked.size(); ++t) {
    const std::vector<double> query = features(kind.query, asked[t]);
    const std::size_t seen = causal ? t + 1 : given.size();
    std::vector<double> columns(kWidth), sums(kWidth);
    for (std::size_t j = 0; j < seen; ++j) {
      const std::vector<double> key = features(kind.key, given[j]);
      for (std::size_t i = 0; i < kWidth; ++i) columns[i] += key[i] * key[i];
    }
    for (std::size_t j = 0; j < seen; ++j) {
      const std::vector<double> key = features(kind.key, given[j]), value = linear(kind.value, given[j]);
      for (std::size_t h = 0; h < kHeads; ++h) {
        double product = 0, of_query = 0, of_key = 0;
        for (std::size_t i = h * d; i < (h + 1) * d; ++i) {
          product += query[i] * key[i] / (by_column ? std::sqrt(columns[i]) : 1);
          of_query += query[i] * query[i];
          of_key += key[i] * key[i];
        }
        product /= std::sqrt(of_query * static_cast<double>(d)) * (by_column ? 1 : std::sqrt(of_key));
        for (std::size_t i = h * d; i < (h + 1) * d; ++i) sums[i] += product * value[i];
      }
    }
    out.push_back(linear(kind.output, sums));
  }
  return out;
}

/// LightSANs: interests gather the projected keys, and the values, of all rows, which read them head by head.
inline Rows by_interests(const nn::MultiHead<nn::LightSansCore>& kind, const Tensor& queries, const Tensor& source) {
  const auto gathered = [&](const nn::Linear& layer, const nn::Parameter& interests) {
    Rows asking = rows_of(interests.value());
    for (std::vector<double>& query : asking) {
      for (double& x : query) x *= std::sqrt(double{kWidth});  // which attend() divides by
    }
    const Rows rows = testing::linear_rows(layer, rows_of(source));
    return testing::attend(asking, rows, rows, 1);
  };
  const Rows asked = testing::linear_rows(kind.query, rows_of(queries));
  return testing::linear_rows(kind.output,
                              testing::attend(asked, gathered(kind.key, kind.attention.key_interests),
                                              gathered(kind.value, kind.attention.value_interests), kHeads));
}

/// What a kind's definition gives; empty where another test holds it.
inline Rows defined(const std::string& name, const nn::Attention& attention, const Tensor& queries,
                    const Tensor& source) {
  if (const auto* kind = attention.as<nn::MultiHead<nn::SoftmaxCore>>()) {
    return by_weights(*kind, queries, source, [&](const auto& query, const auto& key, std::size_t age) {
      return name == "local" && age >= 5 ? 0 : softmax_weight(query, key);
    });
  }
  if (const auto* kind = attention.as<nn::MultiHead<nn::LinearAttentionCore>>()) {
    const Rows directions = kind->attention.directions.defined() ? rows_of(kind->attention.directions.value()) : Rows();
    return by_weights(*kind, queries, source, [&](const auto& query, const auto& key, std::size_t) {
      return directions.empty() ? elu_weight(query, key) : favor_weight(directions, query, key);
    });
  }
  if (const auto* kind = attention.as<nn::MultiHead<nn::LinRecCore>>()) return by_products(*kind, queries, source);
  if (const auto* kind = attention.as<nn::MultiHead<nn::LightSansCore>>()) return by_interests(*kind, queries, source);
  if (const auto* kind = attention.as<nn::HistogramKind>()) return by_codewords(*kind, source, 0.1);
  if (const auto* kind = attention.as<nn::HstuKind>()) return testing::hstu_by_definition(*kind, queries, source);
  if (const auto* kind = attention.as<nn::MultiHead<nn::EfficientCore>>()) {
    return testing::efficient_by_definition(*kind, queries, source);
  }
  if (const auto* kind = attention.as<nn::LambdaKind>()) return testing::lambda_by_definition(*kind, queries, source);
  if (const auto* kind = attention.as<nn::MultiHead<nn::GalerkinCore>>()) {
    return testing::galerkin_by_definition(*kind, queries, source);
  }
  if (const auto* kind = attention.as<nn::FixedMemoryKind>()) {
    return testing::fixed_memory_by_definition(*kind, queries, source);
  }
  if (const auto* kind = attention.as<nn::DispatcherKind>()) {
    return testing::dispatched_by_definition(*kind, queries, source, kind->experts.value());
  }
  if (const auto* kind = attention.as<nn::RecGrelaKind>()) {
    return testing::recgrela_by_definition(*kind, queries, source);
  }
  if (const auto* kind = attention.as<nn::GatedSlotKind>()) {
    return testing::gated_slot_by_definition(*kind, queries, source);
  }
  if (const auto* kind = attention.as<nn::LinearMemoryKind>()) {
    return testing::linear_memory_by_definition(*kind, queries, source, times(queries.dim(0)));
  }
  return {};
}

}  // namespace tally::attention_samples
