#include "tally/nn/quantization.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <set>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/nn/buffer_updates.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/reduce.h"

namespace quantization_test {

using namespace tally;
using Catch::Matchers::Contains;
using nn::CodebookScheme;
using nn::VectorQuantizer;
using ops::CodewordSimilarity;

namespace {

struct RestoreThreads {
  int threads = num_threads();
  ~RestoreThreads() { set_num_threads(threads); }
};

Tensor normal(const Shape& shape, std::uint64_t stream, DType dtype = DType::f32) {
  Tensor tensor(shape, dtype);
  fill_normal({3, stream}, tensor, 0, 1);
  return tensor;
}

/// Mean over rows of ||x - decoded||^2.
double mean_error(const Tensor& x, const Tensor& decoded) {
  return ops::sum(ops::square(Var(x) - Var(decoded))).item() / static_cast<double>(x.dim(0));
}

VectorQuantizer quantizer(CodebookScheme scheme, std::int64_t books, std::int64_t words, std::int64_t width,
                          bool averaged = false) {
  return VectorQuantizer::make({.codebooks = books,
                                .codewords = words,
                                .width = width,
                                .quantization = {.similarity = CodewordSimilarity::squared_distance,
                                                 .residual = scheme == CodebookScheme::residual},
                                .product = scheme == CodebookScheme::product,
                                .count_usage = true,
                                .averaged = averaged,
                                .decay = 0.9,
                                .smoothing = 0.01},
                               {7, 7});
}

/// Runs the quantizer in training over shards of x, then applies what they posted.
void train_step(VectorQuantizer& module, const Tensor& x, std::vector<std::int64_t> bounds) {
  nn::BufferUpdates updates;
  for (std::size_t i = 0; i + 1 < bounds.size(); ++i) {
    nn::BufferUpdates posted;
    const nn::Context context{.training = true, .key = {}, .first_row = bounds[i], .updates = &posted};
    module(Var(x.slice(0, bounds[i], bounds[i + 1])), context);
    updates.append(std::move(posted));
  }
  updates.apply();
}

}  // namespace

TEST_CASE("Xavier's normal deviation counts the fans of a stack", "[quantization]") {
  const VectorQuantizer module = VectorQuantizer::make({.codebooks = 4, .codewords = 32, .width = 64}, {1, 2});
  const auto deviation = [](const Tensor& tensor) {
    double squares = 0;
    for (const double value : tensor.to_doubles()) squares += value * value;
    return std::sqrt(squares / static_cast<double>(tensor.numel()));
  };
  CHECK(deviation(module.codebooks.value()) == Approx(std::sqrt(2.0 / (64 * (32 + 4)))).epsilon(0.03));
  CHECK(deviation(module.bilinear.value()) == Approx(1 / 8.0).epsilon(0.05));
}

TEST_CASE("the module gives what the ops give, in and out of training", "[quantization]") {
  for (const CodebookScheme scheme : {CodebookScheme::residual, CodebookScheme::independent, CodebookScheme::product}) {
    const VectorQuantizer module = quantizer(scheme, 3, 5, 6);
    const Tensor x = normal({40, 6}, 1);
    const auto out = module(Var(x));
    const auto trained = module(Var(x), nn::Context{.training = true});
    CHECK(identical(out.codes, trained.codes));
    CHECK(identical(out.codes, module.encode(x)));
    CHECK(identical(out.reconstruction.value(), trained.reconstruction.value()));
    CHECK(identical(module.decode(out.codes).value(), out.reconstruction.value()));
    CHECK(identical(out.logits.value(), trained.logits.value()));
  }
}

TEST_CASE("biases of codewords are added to their similarities", "[quantization]") {
  const Tensor x = normal({40, 6}, 1);
  for (const CodewordSimilarity similarity :
       {CodewordSimilarity::bilinear, CodewordSimilarity::dot, CodewordSimilarity::squared_distance}) {
    const nn::VectorQuantizerOptions options{.codebooks = 2,
                                             .codewords = 5,
                                             .width = 6,
                                             .quantization = {.similarity = similarity, .temperature = 0.5},
                                             .codeword_bias = true};
    VectorQuantizer module = VectorQuantizer::make(options, {7, 8});
    module.codebooks.mutable_value() = normal({2, 5, 6}, 2);
    const Tensor without = module(Var(x)).codes, bias = normal({10}, 3);
    CHECK(without.to_doubles() == module.encode(x).to_doubles());
    module.bias.mutable_value() = bias;
    const ops::VectorQuantization quantized = module(Var(x));
    CHECK(quantized.codes.to_doubles() != without.to_doubles());
    CHECK(quantized.codes.to_doubles() == module.encode(x).to_doubles());
    // Logits are what they are without biases for the same codes, and the biases over the temperature.
    const std::vector<double> with = quantized.logits.value().to_doubles(), b = bias.to_doubles();
    VectorQuantizer plain = module;
    plain.bias = nn::Parameter();
    const std::vector<double> first = plain(Var(x)).logits.value().to_doubles();
    for (std::size_t row = 0; row < 40; ++row) {
      std::size_t best = 0;
      for (std::size_t word = 0; word < 5; ++word) {
        CHECK(with[row * 10 + word] == Approx(first[row * 10 + word] + b[word] / 0.5).margin(1e-5));
        if (with[row * 10 + word] > with[row * 10 + best]) best = word;
      }
      CHECK(quantized.codes.to_doubles()[row * 2] == static_cast<double>(best));
    }
  }
  CHECK_THROWS_WITH(VectorQuantizer::make({.codebooks = 2,
                                           .width = 6,
                                           .quantization = {.similarity = CodewordSimilarity::dot},
                                           .codeword_bias = true,
                                           .product = true},
                                          {}),
                    Contains("needs additive codebooks for codeword_bias"));
}

TEST_CASE("equal codewords of other biases are no ties", "[quantization]") {
  VectorQuantizer module = VectorQuantizer::make({.codebooks = 1,
                                                  .codewords = 4,
                                                  .width = 2,
                                                  .quantization = {.similarity = ops::CodewordSimilarity::dot},
                                                  .codeword_bias = true},
                                                 {3, 1});
  module.mutable_codewords().copy_from(Tensor::full({1, 4, 2}, 0.5));
  module.bias = nn::Parameter(Tensor::from<float>({0, 1, -1, 1}, {4}));
  for (const double code : module.encode(normal({9, 2}, 4, DType::f32)).to_doubles()) CHECK(code == 1);
}

TEST_CASE("perplexity runs from one word to all", "[quantization]") {
  const Tensor counts = Tensor::from<std::int64_t>({5, 5, 5, 5, 9, 0, 0, 0, 0, 0, 0, 0, 6, 6, 0, 0}, {4, 4});
  const std::vector<double> perplexity = nn::perplexity(counts);
  CHECK(perplexity[0] == Approx(4));
  CHECK(perplexity[1] == Approx(1));
  CHECK(perplexity[2] == 0);
  CHECK(perplexity[3] == Approx(2));
}

TEST_CASE("usage counts the rows of each codeword over steps", "[quantization]") {
  VectorQuantizer module = quantizer(CodebookScheme::residual, 2, 4, 3);
  const Tensor x = normal({30, 3}, 2);
  const Tensor expected = nn::code_counts(module.encode(x), 4);
  module(Var(x), nn::Context{.training = false});
  CHECK(module.count_dead() == 8);
  train_step(module, x, {0, 11, 11, 30});
  CHECK(identical(module.usage.value(), expected));
  train_step(module, x, {0, 30});
  for (std::size_t i = 0; i < 8; ++i) CHECK(module.usage.value().to_doubles()[i] == 2 * expected.to_doubles()[i]);
  module.reset_usage();
  CHECK(module.count_dead() == 8);
  CHECK_THROWS_WITH(nn::code_counts(Tensor::from<std::int32_t>({0, 1, 4, 0}, {2, 2}), 4),
                    Contains("code 0 of row 1 is 4"));
}

TEST_CASE("moving averages are those of the formula", "[quantization]") {
  for (const CodebookScheme scheme : {CodebookScheme::residual, CodebookScheme::independent, CodebookScheme::product}) {
    VectorQuantizer module = quantizer(scheme, 2, 3, 4, true);
    nn::convert(module, DType::f64);
    CHECK(nn::parameters(module).empty());
    const std::size_t width = scheme == CodebookScheme::product ? 2 : 4;
    const Tensor x = normal({25, 4}, 3, DType::f64);
    std::vector<double> counts(6, 1.0), sums = module.averages.value().to_doubles();
    for (int step = 0; step < 3; ++step) {
      // By hand, row by row.
      const std::vector<double> words = module.averages.value().to_doubles(), rows = x.to_doubles();
      const std::vector<double> codes = module.encode(x).to_doubles();
      std::vector<double> own_counts(6), own_sums(sums.size());
      for (std::size_t row = 0; row < 25; ++row) {
        std::vector<double> rest(rows.begin() + static_cast<std::ptrdiff_t>(row * 4),
                                 rows.begin() + static_cast<std::ptrdiff_t>(row * 4 + 4));
        for (std::size_t book = 0; book < 2; ++book) {
          const std::size_t word = book * 3 + static_cast<std::size_t>(codes[row * 2 + book]);
          own_counts[word] += 1;
          for (std::size_t i = 0; i < width; ++i) {
            own_sums[word * width + i] += rest[scheme == CodebookScheme::product ? book * 2 + i : i];
            if (scheme == CodebookScheme::residual) rest[i] -= words[word * width + i];
          }
        }
      }
      for (std::size_t i = 0; i < 6; ++i) counts[i] = 0.9 * counts[i] + 0.1 * own_counts[i];
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] = 0.9 * sums[i] + 0.1 * own_sums[i];
      train_step(module, x, {0, 7, 20, 25});
      for (std::size_t book = 0; book < 2; ++book) {
        const double total = counts[book * 3] + counts[book * 3 + 1] + counts[book * 3 + 2];
        for (std::size_t word = book * 3; word < book * 3 + 3; ++word) {
          const double smoothed = (counts[word] + 0.01) / (total + 3 * 0.01) * total;
          for (std::size_t i = word * width; i < (word + 1) * width; ++i) {
            CHECK(module.averages.value().to_doubles()[i] == Approx(sums[i] / smoothed).epsilon(1e-10));
          }
        }
      }
    }
  }
}

TEST_CASE("k-means finds well separated clusters", "[quantization]") {
  // Three points far apart, each with 20 rows around it.
  Tensor x = normal({60, 2}, 4, DType::f64);
  double* values = x.mutable_data<double>();
  for (std::int64_t i = 0; i < 120; ++i) values[i] = 0.1 * values[i] + (i / 2 % 3 == i % 2 ? 50 : 0);
  std::vector<double> means(6);
  for (std::int64_t i = 0; i < 120; ++i) means[static_cast<std::size_t>(i / 2 % 3 * 2 + i % 2)] += values[i] / 20;
  const std::vector<double> centres = nn::kmeans(x, 3, {5, 5}).to_doubles();
  std::set<std::size_t> found;
  for (std::size_t centre = 0; centre < 3; ++centre) {
    for (std::size_t cluster = 0; cluster < 3; ++cluster) {
      if (std::hypot(centres[2 * centre] - means[2 * cluster], centres[2 * centre + 1] - means[2 * cluster + 1]) <
          1e-9) {
        found.insert(cluster);
      }
    }
  }
  CHECK(found.size() == 3);
}

TEST_CASE("k-means does not lose what is small beside a common offset", "[quantization]") {
  const Tensor x = Tensor::from<float>({10000, 20000, 10000.5f, 20000, 10000, 20000.5f, 10000.5f, 20000}, {4, 2});
  const auto distinct = [](const Tensor& centres) {
    const std::vector<double> values = centres.to_doubles();
    std::set<std::pair<double, double>> found;
    for (std::size_t i = 0; i < values.size(); i += 2) found.insert({values[i], values[i + 1]});
    return found;
  };
  const std::set<std::pair<double, double>> expected{{10000, 20000}, {10000.5, 20000}, {10000, 20000.5}};
  CHECK(distinct(nn::kmeans(x, 3, {5, 5})) == expected);
  CHECK(distinct(nn::residual_kmeans(x, 1, 3, {5, 5})) == expected);
}

TEST_CASE("k-means with fewer distinct rows than words", "[quantization]") {
  const Tensor x = Tensor::from<float>({1, 2, 1, 2, 3, 4}, {3, 2});
  const Tensor centres = nn::kmeans(x, 5, {5, 6});
  CHECK(all_finite(centres));
  const Tensor codebooks = nn::residual_kmeans(x, 1, 5, {5, 6});
  const VectorQuantizer module = [&] {
    VectorQuantizer made = quantizer(CodebookScheme::residual, 1, 5, 2);
    made.mutable_codewords().copy_from(codebooks);
    return made;
  }();
  CHECK(mean_error(x, module.decode(module.encode(x)).value()) < 1e-10);
  CHECK_THROWS_WITH(nn::kmeans(Tensor({0, 2}), 2, {}), Contains("needs rows and words; got 0 rows"));
  CHECK_THROWS_WITH(nn::product_kmeans(Tensor({4, 3}), 2, 2, {}), Contains("2 codebooks divide; got x [4, 3]"));
}

TEST_CASE("the error of the reconstruction falls with every codebook from k-means", "[quantization]") {
  const Tensor x = normal({2000, 8}, 5);
  for (const CodebookScheme scheme : {CodebookScheme::residual, CodebookScheme::product}) {
    double before = scheme == CodebookScheme::residual ? mean_error(x, Tensor::zeros({2000, 8})) : HUGE_VAL;
    for (const std::int64_t books : {1, 2, 4, 8}) {
      VectorQuantizer module = quantizer(scheme, books, 16, 8);
      module.initialize(x, {6, 6});
      const double error = mean_error(x, module.decode(module.encode(x)).value());
      INFO("books " << books << ": " << before << " to " << error);
      CHECK(error < 0.8 * before);
      before = error;
    }
  }
}

TEST_CASE("initial codebooks are the same bits for any number of threads", "[quantization]") {
  const RestoreThreads restore;
  const Tensor x = normal({3000, 10}, 6);
  for (const CodebookScheme scheme : {CodebookScheme::residual, CodebookScheme::independent, CodebookScheme::product}) {
    std::vector<Tensor> runs;
    for (const int threads : {1, 2, 8}) {
      set_num_threads(threads);
      VectorQuantizer module = quantizer(scheme, 2, 9, 10, true);
      module.initialize(x, {6, 7}, {.iterations = 5, .rows_per_word = 200});
      train_step(module, x, {0, 3000});
      module.refresh_dead(x, {6, 8}, 400);
      runs.push_back(module.averages.value().clone());
    }
    CHECK(identical(runs[0], runs[1]));
    CHECK(identical(runs[0], runs[2]));
  }
}

TEST_CASE("dead codewords come back as rows of the batch", "[quantization]") {
  for (const bool averaged : {false, true}) {
    VectorQuantizer module = quantizer(CodebookScheme::residual, 2, 6, 3, averaged);
    // Only word 0 of the first codebook can be chosen.
    float* words = module.mutable_codewords().mutable_data<float>();
    for (std::int64_t word = 1; word < 6; ++word) words[word * 3] = 1e4F + static_cast<float>(word);
    const Tensor x = normal({50, 3}, 7);
    nn::BufferUpdates updates;
    module(Var(x), nn::Context{.training = true, .key = {}, .first_row = 0, .updates = &updates});
    nn::BufferUpdates{.changes = {updates.changes.front()}, .means = {}}.apply();  // counts alone
    CHECK(module.perplexity()[0] == Approx(1));
    const Tensor before = module.codewords().value().clone();
    const std::int64_t dead = module.count_dead();
    CHECK(dead >= 5);
    CHECK(module.refresh_dead(x, {8, 8}) == dead);
    const std::vector<double> now = module.codewords().value().to_doubles(), rows = x.to_doubles();
    std::set<std::size_t> used;
    for (std::size_t word = 0; word < 6; ++word) {
      if (word == 0) {
        for (std::size_t i = 0; i < 3; ++i) CHECK(now[i] == before.to_doubles()[i]);
        continue;
      }
      for (std::size_t row = 0; row < 50; ++row) {
        if (std::equal(rows.begin() + static_cast<std::ptrdiff_t>(3 * row),
                       rows.begin() + static_cast<std::ptrdiff_t>(3 * row + 3),
                       now.begin() + static_cast<std::ptrdiff_t>(3 * word))) {
          used.insert(row);
        }
      }
    }
    CHECK(used.size() == 5);  // five different rows
    CHECK(module.count_dead() == 12);
    train_step(module, x, {0, 50});
    CHECK(module.perplexity()[0] > 2);
    CHECK_THROWS_WITH(module.refresh_dead(Tensor({0, 3}), {}), Contains("needs at least one row"));
  }
}

TEST_CASE("options that do not fit together are refused", "[quantization]") {
  const auto make = [](nn::VectorQuantizerOptions options) { return VectorQuantizer::make(options, {}); };
  CHECK_THROWS_WITH(make({.codebooks = 0, .width = 4}), Contains("sizes above 0"));
  CHECK_THROWS_WITH(make({.codewords = 0, .width = 4}), Contains("sizes above 0"));
  CHECK_THROWS_WITH(make({.codebooks = 2, .width = 4, .product = true}), Contains("got bilinear"));
  CHECK_THROWS_WITH(make({.width = 4, .quantization = {.assignment = ops::CodewordAssignment::soft}, .averaged = true}),
                    Contains("hard assignments for averages"));
  CHECK_THROWS_WITH(make({.width = 4, .averaged = true, .decay = 1}), Contains("decay in [0, 1)"));
  CHECK_THROWS_WITH(make({.width = 4, .quantization = {.temperature = 1e-40}}), Contains("a finite inverse"));
  CHECK_THROWS_WITH(make({.width = 4}).perplexity(), Contains("needs the option count_usage"));
}

TEST_CASE("changes of some elements of a buffer", "[buffer_updates]") {
  Tensor counts = Tensor::from<std::int64_t>({1, 2, 3}, {3}), means = Tensor::from<float>({1, 2, 3}, {3});
  const Tensor places = Tensor::from<std::int64_t>({2, 0, 2}, {3});
  nn::BufferUpdates{
      .changes = {{.buffer = counts, .amount = Tensor::from<std::int64_t>({5, 6, 7}, {3}), .places = places},
                  {.buffer = means, .amount = Tensor::from<double>({5, 6, 7}, {3}), .weight = 0.5, .places = places}},
      .means = {}}
      .apply();
  CHECK(counts.to_doubles() == std::vector<double>{7, 2, 15});
  CHECK(means.to_doubles() == std::vector<double>{4, 2, 9});
  const auto apply = [&](const Tensor& amount, const Tensor& at, double keep) {
    nn::BufferUpdates{.changes = {{.buffer = means, .amount = amount, .keep = keep, .places = at}}, .means = {}}
        .apply();
  };
  CHECK_THROWS_AS(apply(Tensor::from<double>({1}, {1}), Tensor::from<std::int64_t>({3}, {1}), 1), IndexError);
  CHECK_THROWS_AS(apply(Tensor::from<double>({1, 2}, {2}), Tensor::from<std::int64_t>({1}, {1}), 1), ShapeError);
  CHECK_THROWS_AS(apply(Tensor::from<double>({1}, {1}), Tensor::from<std::int64_t>({1}, {1}), 0.5), ValueError);
  CHECK(means.to_doubles() == std::vector<double>{4, 2, 9});
}

}  // namespace quantization_test
