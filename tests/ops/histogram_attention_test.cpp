#include "tally/ops/attention/histogram_attention.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/core/blas.h"
#include "tally/core/memory.h"
#include "tally/core/parallel.h"
#include "tally/core/simd.h"
#include "tally/ops/catalog.h"
#include "tests/ops/references.h"

namespace histogram_attention_test {

using namespace tally;
using ops::AttentionMask;
using ops::CodewordAssignment;
using ops::HistogramAttentionOptions;
using ops::sample_integers;
using ops::sample_normal;

namespace {

/// Largest difference relative to the largest magnitude of b (at least 1).
double difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double apart = 0, largest = 1;
  for (std::size_t i = 0; i < a.size(); ++i) {
    apart = std::isfinite(a[i] - b[i]) ? std::max(apart, std::abs(a[i] - b[i])) : HUGE_VAL;
    largest = std::max(largest, std::abs(b[i]));
  }
  return apart / largest;
}

/// Row t of hard causal attention, from the definition; older rows than `oldest` do not count.
std::vector<double> oracle_row(const Tensor& codes, const Tensor& tables, const Tensor& values, double rate,
                               std::int64_t t, std::int64_t oldest) {
  const std::int64_t books = tables.dim(0), words = tables.dim(1), width = values.dim(1);
  const std::vector<double> s = tables.to_doubles(), v = values.to_doubles();
  const auto* code = codes.data<std::uint8_t>();
  std::vector<double> out(static_cast<std::size_t>(width));
  for (std::int64_t b = 0; b < books; ++b) {
    std::vector<double> weighted(out.size());
    double sum = 0;
    for (std::int64_t j = std::max<std::int64_t>(0, t - oldest); j <= t; ++j) {
      const std::int64_t u = code[t * books + b], w = code[j * books + b];
      const double score = s[static_cast<std::size_t>((b * words + u) * words + w)];
      const double a = std::exp(score / std::sqrt(static_cast<double>(width)) - rate * static_cast<double>(t - j));
      sum += a;
      for (std::int64_t d = 0; d < width; ++d) {
        weighted[static_cast<std::size_t>(d)] += a * v[static_cast<std::size_t>((b * words + w) * width + d)];
      }
    }
    for (std::size_t d = 0; d < out.size(); ++d) out[d] += weighted[d] / sum;
  }
  return out;
}

std::vector<double> row(const Tensor& x, std::int64_t t) { return x.slice(0, t, t + 1).contiguous().to_doubles(); }

}  // namespace

TEST_CASE("histogram attention equals token-level attention per codebook", "[histogram_attention]") {
  const ops::OpEntry& entry = ops::standard_catalog().find("histogram_attention");
  const testing::Reference& reference = testing::all_references().at("histogram_attention");
  const std::vector<std::int64_t> lengths{170, 0, 1, 60, 133};
  const std::int64_t rows = 364, books = 3, words = 7, width = 5;
  for (const char* const mask : {"causal", "bidirectional"}) {
    for (const char* const assignment : {"hard", "soft"}) {
      for (const std::int64_t window : {0, 1, 5, 64, 150}) {
        for (const double rate : {0.0, 0.1}) {
          const ops::OpOptions options{
              {"mask", std::string(mask)}, {"assignment", std::string(assignment)}, {"window", window}};
          const std::vector<Tensor> inputs{sample_integers({rows, books}, 1, words).to(DType::u8),
                                           sample_normal({rows, books, words}, 2),
                                           sample_normal({books, words, words}, 3, 2.0),
                                           sample_normal({books * words, width}, 4),
                                           rate > 0 ? Tensor::scalar(std::log(rate), DType::f64) : Tensor(),
                                           Offsets::from_lengths(lengths).tensor()};
          std::vector<Var> vars;
          for (const Tensor& input : inputs) vars.push_back(input.defined() ? Var(input) : Var());
          INFO(mask << " " << assignment << " window " << window << " rate " << rate);
          CHECK(difference(entry.call(vars, options)[0].value().to_doubles(),
                           reference(inputs, options)[0].to_doubles()) < 1e-12);
        }
      }
    }
  }
}

TEST_CASE("histogram attention does not depend on the size of tiles", "[histogram_attention]") {
  // The width of values decides how many rows a tile has; more columns do not change the first ones.
  const std::int64_t length = 700, books = 8, words = 16;
  const Tensor codes = sample_integers({length, books}, 1, words).to(DType::u8);
  const Tensor tables = sample_normal({books, words, words}, 2), wide = sample_normal({books * words, 240}, 3);
  const Tensor logits = sample_normal({length, books, words}, 4);
  for (const CodewordAssignment assignment : {CodewordAssignment::hard, CodewordAssignment::soft}) {
    for (const std::int64_t window : {0, 100}) {
      HistogramAttentionOptions options;
      options.assignment = assignment;
      options.window = window;
      options.scale = 0.4;
      const auto columns = [&](std::int64_t width) {
        const Tensor values = wide.slice(1, 0, width).contiguous();
        const Tensor all = ops::histogram_attention(codes, logits, tables, values, Tensor::scalar(-3, DType::f64),
                                                    Offsets::single(length), options)
                               .value();
        return all.slice(1, 0, 8).contiguous().to_doubles();
      };
      const std::vector<double> narrow = columns(8);
      for (const std::int64_t width : {100, 128, 240}) CHECK(difference(columns(width), narrow) < 1e-12);
    }
  }
}

TEST_CASE("f32 is f64 for codebooks of a vector and of several, on every target, the same bits on any threads",
          "[histogram_attention]") {
  struct Restore {
    int threads = num_threads();
    std::string target = simd_target();
    ~Restore() {
      set_num_threads(threads);
      set_simd_target(target);
    }
  } restore;
  const std::int64_t length = 700;
  const Offsets offsets = Offsets::from_lengths(std::vector<std::int64_t>{300, 1, 0, 399});
  struct Run {
    Tensor output, logits, tables, values;
  };
  // Codebooks that go together by eight, and what is left of eight.
  for (const auto& [books, words] :
       {std::pair{8, 16}, std::pair{3, 16}, std::pair{11, 16}, std::pair{3, 9}, std::pair{2, 32}, std::pair{2, 128}}) {
    for (const double decay : {0.0, 0.1}) {
      INFO(books << " codebooks of " << words << " words, decay " << decay);
      const Tensor codes = sample_integers({length, books}, 1, words).to(DType::u8);
      const Tensor logits = sample_normal({length, books, words}, 2), tables = sample_normal({books, words, words}, 3);
      const Tensor values = sample_normal({books * words, 12}, 4), upstream = sample_normal({length, 12}, 5);
      const auto run = [&](DType dtype) {
        Tape tape;
        const Var l = tape.input(logits.to(dtype)), t = tape.input(tables.to(dtype)), v = tape.input(values.to(dtype));
        Var output;
        {
          const Recording on(tape);
          const Var rate = decay == 0 ? Var() : Var(Tensor::scalar(std::log(decay), dtype));
          output = ops::histogram_attention(codes, l, t, v, rate, offsets, {.scale = 0.4});
        }
        const Tensor cotangent = upstream.to(dtype);
        const Gradients gradients = tape.backward(std::span(&output, 1), std::span(&cotangent, 1));
        return Run{output.value(), gradients[l], gradients[t], gradients[v]};
      };
      const Run exact = run(DType::f64);
      const auto each = {&Run::output, &Run::logits, &Run::tables, &Run::values};
      for (const std::string& target : simd_targets()) {
        set_simd_target(target);
        std::vector<Run> runs;
        for (const int threads : {1, 2, 8}) {
          set_num_threads(threads);
          runs.push_back(run(DType::f32));
        }
        for (const auto part : each) {
          CHECK(difference((runs[0].*part).to_doubles(), (exact.*part).to_doubles()) < 2e-6);
          for (const Run& other : runs) CHECK((other.*part).to_doubles() == (runs[0].*part).to_doubles());
        }
      }
    }
  }
}

TEST_CASE("without decay the order of the past does not matter", "[histogram_attention]") {
  const std::int64_t length = 1000, books = 4, words = 9, width = 16;
  const Tensor tables = sample_normal({books, words, words}, 2).to(DType::f32);
  const Tensor values = sample_normal({books * words, width}, 3).to(DType::f32);
  const Tensor codes = sample_integers({length, books}, 1, words).to(DType::u8);
  std::vector<std::int64_t> order = random_permutation(RngKey{3, 4}, length - 1);
  order.push_back(length - 1);
  Tensor shuffled(codes.shape(), DType::u8);
  for (std::int64_t i = 0; i < length; ++i) {
    std::copy_n(codes.data<std::uint8_t>() + order[static_cast<std::size_t>(i)] * books, books,
                shuffled.mutable_data<std::uint8_t>() + i * books);
  }
  const auto last = [&](const Tensor& all, const Var& decay) {
    return row(ops::histogram_attention(all, {}, tables, values, decay, Offsets::single(length)).value(), length - 1);
  };
  CHECK(last(codes, {}) == last(shuffled, {}));
  CHECK(last(codes, Tensor::scalar(-2)) != last(shuffled, Tensor::scalar(-2)));
}

TEST_CASE("codewords that never occur have a gradient", "[histogram_attention]") {
  const std::int64_t length = 80, books = 2, words = 4, width = 3;
  const Tensor codes = sample_integers({length, books}, 1, words - 1).to(DType::u8);
  Tape tape;
  const Var logits = tape.input(sample_normal({length, books, words}, 2));
  Var y;
  {
    const Recording on(tape);
    y = ops::histogram_attention(codes, logits, sample_normal({books, words, words}, 3),
                                 sample_normal({books * words, width}, 4), {}, Offsets::single(length));
  }
  const Tensor cotangent = sample_normal(y.shape(), 5);
  const Tensor gradient = tape.backward(std::span(&y, 1), std::span(&cotangent, 1))[logits];
  for (std::int64_t i = 0; i < length * books; ++i)
    CHECK(std::abs(gradient.data<double>()[i * words + words - 1]) > 1e-9);
}

TEST_CASE("histogram attention needs little memory", "[histogram_attention]") {
  const std::int64_t length = 65536, books = 8, words = 16, width = 128;
  const Tensor codes = sample_integers({length, books}, 1, words).to(DType::u8);
  const Tensor tables = sample_normal({books, words, words}, 2).to(DType::f32);
  const Tensor values = sample_normal({books * words, width}, 3).to(DType::f32);
  const MemoryScope scope;
  const Var y = ops::histogram_attention(codes, {}, tables, values, {}, Offsets::single(length));
  // Beyond the output: tallies at borders of tiles, and the tiles of as many tasks as there are threads.
  CHECK(scope.peak() < length * width * 4 + (std::int64_t{4} << 20));
  CHECK(scope.peak() * 300 < length * length * 4);
}

TEST_CASE("a million decayed rows are finite and right", "[histogram_attention][slow]") {
  const std::int64_t length = 1000000, books = 2, words = 16, width = 4;
  const double rate = 0.1;
  const Tensor codes = sample_integers({length, books}, 1, words).to(DType::u8);
  const Tensor tables = sample_normal({books, words, words}, 2), values = sample_normal({books * words, width}, 3);
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor s = tables.to(dtype), v = values.to(dtype);
    Tape tape;
    const Var decay = tape.input(Tensor::scalar(std::log(rate), dtype)), leaf = tape.input(s);
    Var y;
    {
      const Recording on(tape);
      y = ops::histogram_attention(codes, {}, leaf, v, decay, Offsets::single(length));
    }
    CHECK(all_finite(y.value()));
    for (const std::int64_t t :
         {std::int64_t{0}, std::int64_t{59}, std::int64_t{1040}, std::int64_t{65537}, length / 2, length - 1}) {
      INFO("row " << t);
      // Older rows weigh less than e^-100.
      CHECK(difference(row(y.value(), t), oracle_row(codes, s, v, rate, t, 1000)) <
            (dtype == DType::f32 ? 2e-6 : 1e-12));
    }
    const Tensor cotangent = Tensor::full(y.shape(), 1, dtype);
    const Gradients gradients = tape.backward(std::span(&y, 1), std::span(&cotangent, 1));
    CHECK(all_finite(gradients[leaf]));
    CHECK(std::isfinite(gradients[decay].item()));
    CHECK(gradients[decay].item() != 0);
  }
  // Whole numbers are exact: the last row of the same without decay.
  const Tensor y =
      ops::histogram_attention(codes, {}, tables.to(DType::f32), values.to(DType::f32), {}, Offsets::single(length))
          .value();
  CHECK(difference(row(y, length - 1), oracle_row(codes, tables, values, 0, length - 1, length)) < 2e-6);
}

TEST_CASE("a long decayed window is as exact as a short one", "[histogram_attention][slow]") {
  // Rows within the window but a thousand times the decay's reach away: sums that were moved on by subtraction would
  // hold nothing but rounding.
  const std::int64_t length = 30000, books = 1, words = 3, width = 2, window = 9000;
  Tensor codes({length, books}, DType::u8);
  auto* code = codes.mutable_data<std::uint8_t>();
  for (std::int64_t i = 0; i < length; ++i) code[i] = static_cast<std::uint8_t>(i < 20000 ? i % 2 : 2);
  // The codeword that occurs only long ago is preferred by e^60.
  Tensor tables = Tensor::zeros({books, words, words}, DType::f64);
  for (std::int64_t u = 0; u < words; ++u) tables.mutable_data<double>()[u * words] = 60;
  const Tensor values = Tensor::from<double>({1, 0, 0, 1, 0, 0}, {words, width});
  HistogramAttentionOptions options;
  options.window = window;
  options.scale = 1;
  const double rate = 0.01;
  const Tensor y = ops::histogram_attention(codes, {}, tables, values, Tensor::scalar(std::log(rate), DType::f64),
                                            Offsets::single(length), options)
                       .value();
  for (const std::int64_t t : {20000, 22500, 28998, 28999, 29000, 29999}) {
    INFO("row " << t);
    double first = 0, second = 0, rest = 0;
    for (std::int64_t j = std::max<std::int64_t>(0, t - window + 1); j <= t; ++j) {
      const double weight = std::exp(-rate * static_cast<double>(t - j));
      (code[j] == 0 ? first : code[j] == 1 ? second : rest) += weight * (code[j] == 0 ? std::exp(60.0) : 1);
    }
    const double sum = first + second + rest;
    CHECK(y.data<double>()[t * width] == Approx(first / sum).epsilon(1e-11).margin(1e-300));
    CHECK(y.data<double>()[t * width + 1] == Approx(second / sum).epsilon(1e-11).margin(1e-300));
  }
}

TEST_CASE("operations and memory of histogram attention grow with the length, operations below softmax attention's",
          "[histogram_attention]") {
  // What time follows from; time itself is measured by `tally bench lengths`.
  const std::int64_t books = 8, words = 16, width = 128;
  const Tensor tables = sample_normal({books, words, words}, 2).to(DType::f32);
  const Tensor values = sample_normal({books * words, width}, 3).to(DType::f32);
  struct Cost {
    double operations, bytes;
  };
  const auto cost = [](auto&& body) {
    const std::uint64_t before = blas::operations();
    const MemoryScope memory;
    body();
    return Cost{static_cast<double>(blas::operations() - before), static_cast<double>(memory.peak())};
  };
  const auto histogram = [&](std::int64_t length) {
    const Tensor codes = sample_integers({length, books}, 1, words).to(DType::u8);
    return cost([&] { ops::histogram_attention(codes, {}, tables, values, {}, Offsets::single(length)); });
  };
  const Cost short_one = histogram(4096), long_one = histogram(32768);
  CHECK(short_one.operations >= 2.0 * 4096 * books * words * width);
  CHECK(long_one.operations / short_one.operations < 8.1);
  CHECK(long_one.bytes / short_one.bytes < 8.1);
  const Tensor x = sample_normal({512, width}, 4).to(DType::f32);
  const Cost softmax = cost([&] { ops::softmax_attention(x, x, x, Offsets::single(512)); });
  CHECK(histogram(512).operations < 0.5 * softmax.operations);
}

}  // namespace histogram_attention_test
