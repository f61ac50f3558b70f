// LISA's attention with soft queries against its definition, token by token.
#include "tally/nn/histogram_attention.h"

#include <catch2/catch.hpp>
#include <cmath>

namespace histogram_attention_test {

using namespace tally;
using Catch::Matchers::Contains;

namespace {

constexpr std::size_t kBooks = 2, kWords = 5, kWidth = 6;

Tensor normal(const Shape& shape, std::uint64_t stream, double deviation = 1) {
  Tensor tensor(shape, DType::f64);
  fill_normal({9, stream}, tensor, 0, deviation);
  return tensor;
}

/// row [kWidth] of `from` times matrix `book` of `by` [kBooks, kWidth, kWidth].
std::vector<double> projected(const double* row, const std::vector<double>& by, std::size_t book) {
  std::vector<double> out(kWidth, 0);
  for (std::size_t i = 0; i < kWidth; ++i) {
    for (std::size_t j = 0; j < kWidth; ++j) out[j] += row[i] * by[(book * kWidth + i) * kWidth + j];
  }
  return out;
}

std::vector<double> softmax(const double* logits) {
  double sum = 0;
  std::vector<double> out(logits, logits + kWords);
  const double largest = *std::max_element(out.begin(), out.end());
  for (double& value : out) sum += value = std::exp(value - largest);
  for (double& value : out) value /= sum;
  return out;
}

/// Every codeword of every earlier token is a key, with the weight of its assignment and its age.
std::vector<double> token_level(const nn::HistogramSelfAttention& attention, const Tensor& codebooks,
                                const Tensor& logits, std::size_t begin, std::size_t t, double decay) {
  const std::vector<double> c = codebooks.to_doubles(), l = logits.to_doubles();
  const std::vector<double> wq = attention.query.value().to_doubles(), wk = attention.key.value().to_doubles(),
                            wv = attention.value.value().to_doubles();
  std::vector<double> out(kWidth, 0);
  for (std::size_t b = 0; b < kBooks; ++b) {
    const double* words = c.data() + b * kWords * kWidth;
    const auto assignment = [&](std::size_t j) { return softmax(l.data() + (j * kBooks + b) * kWords); };
    std::vector<double> average(kWidth, 0);
    for (std::size_t u = 0; u < kWords; ++u) {
      for (std::size_t i = 0; i < kWidth; ++i) average[i] += assignment(t)[u] * words[u * kWidth + i];
    }
    const std::vector<double> query = projected(average.data(), wq, b);
    std::vector<double> sum(kWidth, 0);
    double total = 0;
    for (std::size_t j = begin; j <= t; ++j) {
      for (std::size_t w = 0; w < kWords; ++w) {
        const std::vector<double> key = projected(words + w * kWidth, wk, b),
                                  value = projected(words + w * kWidth, wv, b);
        double product = 0;
        for (std::size_t i = 0; i < kWidth; ++i) product += query[i] * key[i];
        const double weight = assignment(j)[w] * std::exp(product / std::sqrt(static_cast<double>(kWidth)) -
                                                          decay * static_cast<double>(t - j));
        total += weight;
        for (std::size_t i = 0; i < kWidth; ++i) sum[i] += weight * value[i];
      }
    }
    for (std::size_t i = 0; i < kWidth; ++i) out[i] += sum[i] / total;
  }
  return out;
}

nn::HistogramSelfAttention make(double decay, bool learn_decay) {
  nn::HistogramSelfAttention attention = nn::HistogramSelfAttention::make({.codebooks = kBooks,
                                                                           .width = kWidth,
                                                                           .assignment = ops::CodewordAssignment::soft,
                                                                           .decay = decay,
                                                                           .learn_decay = learn_decay,
                                                                           .soft_query = true},
                                                                          {4, 4});
  attention.query = nn::Parameter(normal({kBooks, kWidth, kWidth}, 1));
  attention.key = nn::Parameter(normal({kBooks, kWidth, kWidth}, 2));
  attention.value = nn::Parameter(normal({kBooks, kWidth, kWidth}, 3));
  if (learn_decay) attention.log_decay = nn::Parameter(Tensor::full({1}, std::log(decay), DType::f64));
  return attention;
}

}  // namespace

TEST_CASE("soft queries: every codeword of every token is a key", "[histogram_attention]") {
  const std::vector<std::int64_t> lengths{4, 0, 1, 9};
  const Offsets offsets = Offsets::from_lengths(lengths);
  const Tensor codebooks = normal({kBooks, kWords, kWidth}, 5);
  const Tensor codes = Tensor::zeros({offsets.total(), kBooks}, DType::u8);
  // The second logits are so far apart that assignments underflow.
  for (const double deviation : {1.0, 400.0}) {
    const Tensor logits = normal({offsets.total(), kBooks, kWords}, 6, deviation);
    for (const auto& [decay, learned] : {std::pair{0.0, false}, {0.3, false}, {0.3, true}}) {
      const nn::HistogramSelfAttention attention = make(decay, learned);
      const std::vector<double> out =
          attention(codes, Var(logits), attention.tables(Var(codebooks)), offsets).value().to_doubles();
      for (std::size_t s = 0; s < lengths.size(); ++s) {
        const auto begin = static_cast<std::size_t>(offsets.at(static_cast<std::int64_t>(s)));
        for (std::size_t t = begin; t < begin + static_cast<std::size_t>(lengths[s]); ++t) {
          const std::vector<double> expected = token_level(attention, codebooks, logits, begin, t, decay);
          for (std::size_t i = 0; i < kWidth; ++i) CHECK(out[t * kWidth + i] == Approx(expected[i]).margin(1e-11));
        }
      }
    }
  }
}

TEST_CASE("soft queries where they mean nothing are refused", "[histogram_attention]") {
  const nn::HistogramSelfAttentionOptions good{
      .codebooks = 2, .width = 4, .assignment = ops::CodewordAssignment::soft, .soft_query = true};
  CHECK_NOTHROW(nn::HistogramSelfAttention::make(good, {}));
  for (int i = 0; i < 3; ++i) {
    nn::HistogramSelfAttentionOptions bad = good;
    if (i == 0) bad.assignment = ops::CodewordAssignment::hard;
    if (i == 1) bad.mask = ops::AttentionMask::bidirectional;
    if (i == 2) bad.window = 3;
    CHECK_THROWS_WITH(nn::HistogramSelfAttention::make(bad, {}), Contains("for soft queries"));
  }
}

}  // namespace histogram_attention_test
