// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/histogram_tile.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tally/core/kernels.h"
#include "tally/ops/kernels/histogram_tile.h"
#include "tally/ops/kernels/simd_math-inl.h"
#include "tally/ops/kernels/vectors-inl.h"

#ifndef TALLY_OPS_KERNELS_HISTOGRAM_TILE_ONCE_
#define TALLY_OPS_KERNELS_HISTOGRAM_TILE_ONCE_
namespace tally::kernels {
namespace {

/// Below this a sum of counts times exponentials may have lost all its terms to underflow.
template <class T>
constexpr T kSmallestSum = sizeof(T) == sizeof(float) ? T(1e-20) : T(1e-250);

/// Probabilities relative to the largest product among the codewords present. Returns the log of the sum.
template <class T>
T present_probabilities(const T* counts, const T* products, double scale, std::int64_t words, T* probabilities) {
  double largest = -std::numeric_limits<double>::infinity();
  const auto exponent = [&](std::int64_t w) {
    return scale * static_cast<double>(products[w]) + std::log(static_cast<double>(counts[w]));
  };
  for (std::int64_t w = 0; w < words; ++w) {
    if (counts[w] > 0) largest = std::max(largest, exponent(w));
  }
  double sum = 0;
  for (std::int64_t w = 0; w < words; ++w) {
    if (counts[w] > 0) sum += std::exp(exponent(w) - largest);
  }
  // Nothing present: 0 / 0. Callers see to it that something counts.
  for (std::int64_t w = 0; w < words; ++w) {
    const double p = counts[w] > 0 ? std::exp(exponent(w) - largest) : 0.0;
    probabilities[w] = static_cast<T>(p / sum);
  }
  return static_cast<T>(largest + std::log(sum));
}

/// e_w / sum for such a row.
template <class T>
T present_ratio(T product, double scale, T log_sum) {
  const double exponent = scale * static_cast<double>(product) - static_cast<double>(log_sum);
  return static_cast<T>(std::exp(std::min(exponent, kLargestLogRatio)));
}

}  // namespace
}  // namespace tally::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using F = simd::Floats;
using I = hn::RebindToSigned<F>;
using V = hn::Vec<F>;

static_assert(HWY_MAX_BYTES / sizeof(float) <= kCodewordPadding, "codebooks are padded to whole vectors");

HWY_INLINE std::int64_t lanes_of(F d) { return static_cast<std::int64_t>(hn::Lanes(d)); }

/// One row of one codebook: products with the exponentials are in `p`, their sum is given.
HWY_INLINE void normalize_row(F d, const CodewordTables<float>& tables, std::int64_t codebook, std::int64_t code,
                              float sum, const float* counts, float* p, float* inverse, float* log_sum) {
  const std::int64_t lanes = lanes_of(d);
  if (sum >= kSmallestSum<float>) {
    *inverse = 1 / sum;
    const V factor = hn::Set(d, *inverse);
    for (std::int64_t w = 0; w < tables.padded; w += lanes) {
      hn::StoreU(flushed(d, hn::Mul(factor, hn::LoadU(d, p + w))), d, p + w);
    }
    return;
  }
  *inverse = 0;
  const float* products = tables.products + (codebook * tables.words + code) * tables.words;
  *log_sum = present_probabilities(counts, products, tables.scale, tables.words, p);
  std::fill(p + tables.words, p + tables.padded, 0.0f);
}

void histogram_probabilities_f32(const CodewordTables<float>& tables, CodeRows codes, std::int64_t rows, float* counts,
                                 Normalizers<float> normalizers) {
  const F d;
  const std::int64_t lanes = lanes_of(d), padded = tables.padded, codebooks = tables.codebooks;
  std::vector<float> kept(static_cast<std::size_t>(padded));
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t b = 0; b < codebooks; ++b) {
      const std::int64_t code = codes.at(r, b), place = r * codebooks + b;
      const float* e = tables.exponentials + (b * tables.words + code) * padded;
      float* row = counts + place * padded;
      V sum = hn::Zero(d);
      for (std::int64_t w = 0; w < padded; w += lanes) {
        sum = hn::MulAdd(hn::LoadU(d, row + w), hn::LoadU(d, e + w), sum);
      }
      const float total = hn::GetLane(hn::SumOfLanes(d, sum));
      if (total >= kSmallestSum<float>) {
        const float inverse = 1 / total;
        normalizers.inverse[place] = inverse;
        const V factor = hn::Set(d, inverse);
        for (std::int64_t w = 0; w < padded; w += lanes) {
          const V product = hn::Mul(hn::LoadU(d, row + w), hn::LoadU(d, e + w));
          hn::StoreU(flushed(d, hn::Mul(factor, product)), d, row + w);
        }
      } else {
        std::copy_n(row, padded, kept.data());
        normalize_row(d, tables, b, code, total, kept.data(), row, normalizers.inverse + place,
                      normalizers.log_sum + place);
      }
    }
  }
}

/// causal_probabilities for codebooks of kVectors vectors: the counts of a codebook stay in registers.
template <int kVectors, bool kDecayed>
void causal_in_registers(const CodewordTables<float>& tables, CodeRows codes, std::int64_t rows, const float* before,
                         const float* powers, float* probabilities, Normalizers<float> normalizers) {
  const F d;
  const I di;
  const std::int64_t lanes = lanes_of(d), padded = tables.padded, stride = tables.stride();
  const V one = hn::Set(d, 1.0f), decay = hn::Set(d, powers[1]);
  for (std::int64_t b = 0; b < tables.codebooks; ++b) {
    V start[kVectors], local[kVectors], product[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      start[v] = before == nullptr ? hn::Zero(d) : hn::LoadU(d, before + b * padded + v * lanes);
      local[v] = hn::Zero(d);
    }
    const float* exponentials = tables.exponentials + b * tables.words * padded;
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t code = codes.at(r, b), place = r * tables.codebooks + b;
      const auto wanted = hn::Set(di, static_cast<std::int32_t>(code));
      const float* e = exponentials + code * padded;
      float* p = probabilities + r * stride + b * padded;
      const V power = hn::Set(d, powers[r + 1]);
      V sum = hn::Zero(d);
      for (int v = 0; v < kVectors; ++v) {
        const auto word = hn::Iota(di, static_cast<std::int32_t>(v * lanes));
        const V counted = hn::IfThenElseZero(hn::RebindMask(d, hn::Eq(word, wanted)), one);
        local[v] = kDecayed ? flushed(d, hn::MulAdd(local[v], decay, counted)) : hn::Add(local[v], counted);
        const V count = kDecayed ? hn::MulAdd(start[v], power, local[v]) : hn::Add(start[v], local[v]);
        product[v] = hn::Mul(count, hn::LoadU(d, e + v * lanes));
        sum = hn::Add(sum, product[v]);
      }
      const float total = hn::GetLane(hn::SumOfLanes(d, sum));
      if (total >= kSmallestSum<float>) {
        const float inverse = 1 / total;
        normalizers.inverse[place] = inverse;
        const V factor = hn::Set(d, inverse);
        for (int v = 0; v < kVectors; ++v) hn::StoreU(flushed(d, hn::Mul(factor, product[v])), d, p + v * lanes);
      } else {
        float counts[kVectors * kCodewordPadding];
        for (int v = 0; v < kVectors; ++v) {
          const V count = kDecayed ? hn::MulAdd(start[v], power, local[v]) : hn::Add(start[v], local[v]);
          hn::StoreU(count, d, counts + v * lanes);
        }
        normalize_row(d, tables, b, code, total, counts, p, normalizers.inverse + place, normalizers.log_sum + place);
      }
    }
  }
}

/// The same for codebooks of any size: counts in memory.
void causal_in_memory(const CodewordTables<float>& tables, CodeRows codes, std::int64_t rows, const float* before,
                      const float* powers, float* probabilities, Normalizers<float> normalizers) {
  const F d;
  const std::int64_t lanes = lanes_of(d), padded = tables.padded, stride = tables.stride();
  const bool decayed = powers[1] != 1;
  std::vector<float> local(static_cast<std::size_t>(padded)), counts(local.size());
  for (std::int64_t b = 0; b < tables.codebooks; ++b) {
    std::fill(local.begin(), local.end(), 0.0f);
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t code = codes.at(r, b), place = r * tables.codebooks + b;
      const float* e = tables.exponentials + (b * tables.words + code) * padded;
      float* p = probabilities + r * stride + b * padded;
      if (decayed) decay_counts(local.data(), powers[1], padded);
      local[static_cast<std::size_t>(code)] += 1;
      const V power = hn::Set(d, powers[r + 1]);
      V sum = hn::Zero(d);
      for (std::int64_t w = 0; w < padded; w += lanes) {
        V count = hn::LoadU(d, local.data() + w);
        if (before != nullptr) count = hn::MulAdd(hn::LoadU(d, before + b * padded + w), power, count);
        hn::StoreU(count, d, counts.data() + w);
        const V product = hn::Mul(count, hn::LoadU(d, e + w));
        hn::StoreU(product, d, p + w);
        sum = hn::Add(sum, product);
      }
      normalize_row(d, tables, b, code, hn::GetLane(hn::SumOfLanes(d, sum)), counts.data(), p,
                    normalizers.inverse + place, normalizers.log_sum + place);
    }
  }
}

void causal_probabilities_f32(const CodewordTables<float>& tables, CodeRows codes, std::int64_t rows,
                              const float* before, const float* powers, float* probabilities,
                              Normalizers<float> normalizers) {
  const auto call = [&](auto plain, auto decayed) {
    (powers[1] == 1 ? plain : decayed)(tables, codes, rows, before, powers, probabilities, normalizers);
  };
  switch (tables.padded / lanes_of(F())) {
    case 1:
      return call(&causal_in_registers<1, false>, &causal_in_registers<1, true>);
    case 2:
      return call(&causal_in_registers<2, false>, &causal_in_registers<2, true>);
    case 4:
      return call(&causal_in_registers<4, false>, &causal_in_registers<4, true>);
    case 8:
      return call(&causal_in_registers<8, false>, &causal_in_registers<8, true>);
    default:
      return causal_in_memory(tables, codes, rows, before, powers, probabilities, normalizers);
  }
}

void histogram_probabilities_backward_f32(const CodewordTables<float>& tables, CodeRows codes, std::int64_t rows,
                                          const float* probabilities, Normalizers<float> normalizers, float* gradients,
                                          float* table_gradients) {
  const F d;
  const std::int64_t lanes = lanes_of(d), padded = tables.padded, codebooks = tables.codebooks;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t b = 0; b < codebooks; ++b) {
      const std::int64_t code = codes.at(r, b), place = r * codebooks + b, table_row = b * tables.words + code;
      const float *p = probabilities + place * padded, *e = tables.exponentials + table_row * padded;
      float* g = gradients + place * padded;
      V dot = hn::Zero(d);
      for (std::int64_t w = 0; w < padded; w += lanes) {
        dot = hn::MulAdd(hn::LoadU(d, p + w), hn::LoadU(d, g + w), dot);
      }
      const V mean = hn::SumOfLanes(d, dot);
      float* sums = table_gradients == nullptr ? nullptr : table_gradients + table_row * padded;
      const float inverse = normalizers.inverse[place];
      const V factor = hn::Set(d, inverse), one = hn::Set(d, 1.0f);
      for (std::int64_t w = 0; w < padded; w += lanes) {
        const V difference = hn::Sub(hn::LoadU(d, g + w), mean);
        const V ratio = inverse == 0 ? one : hn::Mul(factor, hn::LoadU(d, e + w));
        if (sums != nullptr) {
          hn::StoreU(hn::MulAdd(hn::LoadU(d, p + w), difference, hn::LoadU(d, sums + w)), d, sums + w);
        }
        hn::StoreU(hn::Mul(ratio, difference), d, g + w);
      }
      if (inverse != 0) continue;
      const float* products = tables.products + table_row * tables.words;
      for (std::int64_t w = 0; w < tables.words; ++w) {
        g[w] *= present_ratio(products[w], tables.scale, normalizers.log_sum[place]);
      }
      std::fill(g + tables.words, g + padded, 0.0f);
    }
  }
}

void codeword_softmax_f32(const CodewordTables<float>& tables, const float* logits, std::int64_t rows,
                          float* assignments) {
  const F d;
  const std::int64_t lanes = lanes_of(d), words = tables.words, padded = tables.padded, codebooks = tables.codebooks;
  const V lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  std::vector<float> statistics(static_cast<std::size_t>(codebooks));
  float* statistic = statistics.data();
  // All codebooks of a row step by step: the dependent steps of one codebook then overlap with the next one's.
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* x = logits + r * codebooks * words;
    float* row = assignments + r * codebooks * padded;
    for (std::int64_t b = 0; b < codebooks; ++b) {
      float* a = row + b * padded;
      V largest = lowest;
      for (std::int64_t w = 0; w < padded; w += lanes) {
        V value = lowest;
        if (w + lanes <= words) {
          value = hn::LoadU(d, x + b * words + w);
        } else if (w < words) {
          const auto inside = hn::FirstN(d, static_cast<std::size_t>(words - w));
          value = hn::IfThenElse(inside, load_lanes(d, x + b * words + w, words - w), lowest);
        }
        hn::StoreU(value, d, a + w);
        largest = hn::Max(largest, value);
      }
      statistic[b] = hn::GetLane(hn::MaxOfLanes(d, largest));
    }
    for (std::int64_t b = 0; b < codebooks; ++b) {
      float* a = row + b * padded;
      const V shift = hn::Set(d, statistic[b]);
      for (std::int64_t w = 0; w < padded; w += lanes) {
        hn::StoreU(simd::exp_of_difference(d, hn::Sub(hn::LoadU(d, a + w), shift)), d, a + w);
      }
    }
    for (std::int64_t b = 0; b < codebooks; ++b) {
      const float* a = row + b * padded;
      V sum = hn::Zero(d);
      for (std::int64_t w = 0; w < padded; w += lanes) sum = hn::Add(sum, hn::LoadU(d, a + w));
      statistic[b] = 1 / hn::GetLane(hn::SumOfLanes(d, sum));
    }
    for (std::int64_t b = 0; b < codebooks; ++b) {
      float* a = row + b * padded;
      const V factor = hn::Set(d, statistic[b]);
      for (std::int64_t w = 0; w < padded; w += lanes) {
        hn::StoreU(flushed(d, hn::Mul(factor, hn::LoadU(d, a + w))), d, a + w);
      }
    }
  }
}

void codeword_softmax_backward_f32(const CodewordTables<float>& tables, const float* assignments,
                                   const float* gradients, std::int64_t rows, float* logit_gradients) {
  const F d;
  const std::int64_t lanes = lanes_of(d), words = tables.words, padded = tables.padded;
  for (std::int64_t i = 0; i < rows * tables.codebooks; ++i) {
    const float *a = assignments + i * padded, *g = gradients + i * padded;
    V dot = hn::Zero(d);
    for (std::int64_t w = 0; w < padded; w += lanes) {
      dot = hn::MulAdd(hn::LoadU(d, a + w), hn::LoadU(d, g + w), dot);
    }
    const V mean = hn::SumOfLanes(d, dot);
    for (std::int64_t w = 0; w < words; w += lanes) {
      const V gradient = hn::Mul(hn::LoadU(d, a + w), hn::Sub(hn::LoadU(d, g + w), mean));
      store_lanes(gradient, d, logit_gradients + i * words + w, std::min(lanes, words - w));
    }
  }
}

void decay_counts_f32(float* x, float factor, std::int64_t n) {
  const F d;
  const std::int64_t lanes = lanes_of(d);
  const V f = hn::Set(d, factor);
  for (std::int64_t i = 0; i < n; i += lanes) hn::StoreU(flushed(d, hn::Mul(f, hn::LoadU(d, x + i))), d, x + i);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {

HWY_EXPORT(histogram_probabilities_f32);
HWY_EXPORT(causal_probabilities_f32);
HWY_EXPORT(histogram_probabilities_backward_f32);
HWY_EXPORT(codeword_softmax_f32);
HWY_EXPORT(codeword_softmax_backward_f32);
HWY_EXPORT(decay_counts_f32);

}  // namespace

template <class T>
void tabulate_exponentials(const T* products, std::int64_t words, std::int64_t padded, double scale, T* exponentials) {
  const auto factor = static_cast<T>(scale);
  for (std::int64_t u = 0; u < words; ++u) {
    const T* row = products + u * words;
    T* to = exponentials + u * padded;
    // The largest exponent: of the largest product, or of the least when the scale is negative.
    T largest = factor * row[0];
    for (std::int64_t w = 1; w < words; ++w) largest = std::max(largest, factor * row[w]);
    exp_and_sum(to, row, factor, largest, words);
    std::fill(to + words, to + padded, T{0});
  }
}
template void tabulate_exponentials(const float*, std::int64_t, std::int64_t, double, float*);
template void tabulate_exponentials(const double*, std::int64_t, std::int64_t, double, double*);

void histogram_probabilities(const CodewordTables<float>& tables, CodeRows codes, std::int64_t rows, float* counts,
                             Normalizers<float> normalizers) {
  HWY_DYNAMIC_DISPATCH(histogram_probabilities_f32)(tables, codes, rows, counts, normalizers);
}
void histogram_probabilities(const CodewordTables<double>& tables, CodeRows codes, std::int64_t rows, double* counts,
                             Normalizers<double> normalizers) {
  std::vector<double> kept(static_cast<std::size_t>(tables.padded));
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t b = 0; b < tables.codebooks; ++b) {
      const std::int64_t place = r * tables.codebooks + b, table_row = b * tables.words + codes.at(r, b);
      const double* e = tables.exponentials + table_row * tables.padded;
      double* row = counts + place * tables.padded;
      double sum = 0;
      for (std::int64_t w = 0; w < tables.words; ++w) sum += row[w] * e[w];
      if (sum >= kSmallestSum<double>) {
        normalizers.inverse[place] = 1 / sum;
        for (std::int64_t w = 0; w < tables.words; ++w) row[w] = row[w] * e[w] / sum;
      } else {
        std::copy_n(row, tables.padded, kept.data());
        normalizers.inverse[place] = 0;
        normalizers.log_sum[place] = present_probabilities(kept.data(), tables.products + table_row * tables.words,
                                                           tables.scale, tables.words, row);
      }
    }
  }
}

void causal_probabilities(const CodewordTables<float>& tables, CodeRows codes, std::int64_t rows, const float* before,
                          const float* powers, float* probabilities, Normalizers<float> normalizers) {
  HWY_DYNAMIC_DISPATCH(causal_probabilities_f32)(tables, codes, rows, before, powers, probabilities, normalizers);
}
void causal_probabilities(const CodewordTables<double>& tables, CodeRows codes, std::int64_t rows, const double* before,
                          const double* powers, double* probabilities, Normalizers<double> normalizers) {
  const std::int64_t stride = tables.stride();
  std::vector<double> local(static_cast<std::size_t>(stride));
  for (std::int64_t r = 0; r < rows; ++r) {
    if (powers[1] != 1) decay_counts(local.data(), powers[1], stride);
    for (std::int64_t b = 0; b < tables.codebooks; ++b) {
      local[static_cast<std::size_t>(b * tables.padded + codes.at(r, b))] += 1;
    }
    double* row = probabilities + r * stride;
    std::copy(local.begin(), local.end(), row);
    if (before != nullptr) axpy(row, powers[r + 1], before, stride);
  }
  histogram_probabilities(tables, codes, rows, probabilities, normalizers);
}

void histogram_probabilities_backward(const CodewordTables<float>& tables, CodeRows codes, std::int64_t rows,
                                      const float* probabilities, Normalizers<float> normalizers, float* gradients,
                                      float* table_gradients) {
  HWY_DYNAMIC_DISPATCH(histogram_probabilities_backward_f32)
  (tables, codes, rows, probabilities, normalizers, gradients, table_gradients);
}
void histogram_probabilities_backward(const CodewordTables<double>& tables, CodeRows codes, std::int64_t rows,
                                      const double* probabilities, Normalizers<double> normalizers, double* gradients,
                                      double* table_gradients) {
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t b = 0; b < tables.codebooks; ++b) {
      const std::int64_t place = r * tables.codebooks + b, table_row = b * tables.words + codes.at(r, b);
      const double* p = probabilities + place * tables.padded;
      double* g = gradients + place * tables.padded;
      const double mean = dot(p, g, tables.words), inverse = normalizers.inverse[place];
      for (std::int64_t w = 0; w < tables.words; ++w) {
        const double difference = g[w] - mean;
        if (table_gradients != nullptr) table_gradients[table_row * tables.padded + w] += p[w] * difference;
        const double ratio = inverse != 0 ? inverse * tables.exponentials[table_row * tables.padded + w]
                                          : present_ratio(tables.products[table_row * tables.words + w], tables.scale,
                                                          normalizers.log_sum[place]);
        g[w] = ratio * difference;
      }
      std::fill(g + tables.words, g + tables.padded, 0.0);
    }
  }
}

void codeword_softmax(const CodewordTables<float>& tables, const float* logits, std::int64_t rows, float* assignments) {
  HWY_DYNAMIC_DISPATCH(codeword_softmax_f32)(tables, logits, rows, assignments);
}
void codeword_softmax(const CodewordTables<double>& tables, const double* logits, std::int64_t rows,
                      double* assignments) {
  for (std::int64_t i = 0; i < rows * tables.codebooks; ++i) {
    const double* x = logits + i * tables.words;
    double* a = assignments + i * tables.padded;
    const double sum = exp_and_sum(a, x, 1.0, max_value(x, tables.words), tables.words);
    for (std::int64_t w = 0; w < tables.words; ++w) a[w] /= sum;
    std::fill(a + tables.words, a + tables.padded, 0.0);
  }
}

void codeword_softmax_backward(const CodewordTables<float>& tables, const float* assignments, const float* gradients,
                               std::int64_t rows, float* logit_gradients) {
  HWY_DYNAMIC_DISPATCH(codeword_softmax_backward_f32)(tables, assignments, gradients, rows, logit_gradients);
}
void codeword_softmax_backward(const CodewordTables<double>& tables, const double* assignments, const double* gradients,
                               std::int64_t rows, double* logit_gradients) {
  for (std::int64_t i = 0; i < rows * tables.codebooks; ++i) {
    const double *a = assignments + i * tables.padded, *g = gradients + i * tables.padded;
    const double mean = dot(a, g, tables.words);
    for (std::int64_t w = 0; w < tables.words; ++w) logit_gradients[i * tables.words + w] = a[w] * (g[w] - mean);
  }
}

void decay_counts(float* x, float factor, std::int64_t n) { HWY_DYNAMIC_DISPATCH(decay_counts_f32)(x, factor, n); }
void decay_counts(double* x, double factor, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    x[i] *= factor;
    if (std::abs(x[i]) < std::numeric_limits<double>::min()) x[i] = 0;
  }
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
