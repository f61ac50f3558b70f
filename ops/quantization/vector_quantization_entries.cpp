// Catalog entries of ops/quantization/vector_quantization.h and ops/quantization/product_quantization.h.

#include <algorithm>
#include <limits>

#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/entries.h"
#include "tally/ops/quantization/codes.h"
#include "tally/ops/quantization/product_quantization.h"
#include "tally/ops/quantization/vector_quantization.h"
#include "tally/ops/tensor/matmul.h"
#include "tally/ops/tensor/reduce.h"
#include "tally/ops/tensor/shape.h"
#include "tally/ops/tensor/softmax.h"

namespace tally::ops {
namespace {

constexpr const char* kName = "vector_quantization";
constexpr double kTemperature = 0.7;

VectorQuantizationOptions parsed(const OpOptions& options) {
  VectorQuantizationOptions result;
  const std::string similarity = options.text("similarity", "bilinear");
  check<ConfigError>(similarity == "bilinear" || similarity == "dot" || similarity == "squared_distance", kName,
                     "needs similarity bilinear, dot or squared_distance; got '", similarity, "'");
  if (similarity == "dot") result.similarity = CodewordSimilarity::dot;
  if (similarity == "squared_distance") result.similarity = CodewordSimilarity::squared_distance;
  const std::string assignment = options.text("assignment", "hard");
  check<ConfigError>(assignment == "hard" || assignment == "soft", kName, "needs assignment hard or soft; got '",
                     assignment, "'");
  if (assignment == "soft") result.assignment = CodewordAssignment::soft;
  result.temperature = options.number("temperature", kTemperature);
  result.residual = options.flag("residual", true);
  result.books_together = options.integer("books_together", 0);
  return result;
}

/// With product quantization's own default.
OpOptions with_distance(const OpOptions& options) {
  OpOptions result = options;
  if (!options.contains("similarity")) result.set("similarity", std::string("squared_distance"));
  return result;
}

std::vector<OpOption> documented_options() {
  return {
      {"similarity", std::string("bilinear"), "bilinear, dot or squared_distance"},
      {"temperature", kTemperature, "divides the similarities before the softmax"},
      {"assignment", std::string("hard"), "hard (straight-through) or soft"},
      {"residual", true, "a codebook encodes what the ones before it left over"},
      {"books_together", std::int64_t{0}, "codebooks whose passes share a product; 0: as many as make 256 codewords"}};
}

/// What the surrogate holds still for one codebook: the chosen words, and the softmax that is added and taken off.
struct Frozen {
  Tensor chosen, stopped;  // [T, W]
};

/// One-hot rows of the largest scores, the first of equals.
Tensor one_hot(const Tensor& scores, std::int64_t book, Tensor& codes) {
  const std::int64_t rows = scores.dim(0), words = scores.dim(1), books = codes.dim(1);
  Tensor chosen = Tensor::zeros(scores.shape(), DType::f64);
  const double* from = scores.data<double>();
  double* to = chosen.mutable_data<double>();
  detail::dispatch_codes(codes.dtype(), kName, [&]<class Code>(Code) {
    Code* out = codes.mutable_data<Code>();
    for (std::int64_t row = 0; row < rows; ++row) {
      const double* row_scores = from + row * words;
      const std::int64_t best = std::max_element(row_scores, row_scores + words) - row_scores;
      to[row * words + best] = 1;
      out[row * books + book] = static_cast<Code>(best);
    }
  });
  return chosen;
}

/// The definition, composed of other ops, with products of full width. `frozen` is filled when empty.
std::vector<Var> composed(std::span<const Var> in, const VectorQuantizationOptions& options,
                          std::vector<Frozen>& frozen, Tensor& codes) {
  const Var &x = in[0], &codebooks = in[1], &bilinear = in[2];
  const std::int64_t books = codebooks.dim(0), words = codebooks.dim(1), width = codebooks.dim(2);
  const bool freeze = frozen.empty();
  Var rest = x, reconstruction = Tensor::zeros(x.shape(), DType::f64);
  std::vector<Var> logits;
  for (std::int64_t book = 0; book < books; ++book) {
    const Var codewords = reshape(slice(codebooks, 0, book, book + 1), {words, width});
    Var scores;
    switch (options.similarity) {
      case CodewordSimilarity::bilinear:
        scores = matmul(matmul(rest, bilinear), codewords, {.transpose_b = true});
        break;
      case CodewordSimilarity::dot:
        scores = matmul(rest, codewords, {.transpose_b = true});
        break;
      case CodewordSimilarity::squared_distance:
        scores = 2.0 * matmul(rest, codewords, {.transpose_b = true}) - sum(square(codewords), {.dims = {1}});
        break;
    }
    const Var logit = scores / options.temperature, probabilities = softmax(logit);
    if (freeze) frozen.push_back({one_hot(scores.value(), book, codes), probabilities.value().clone()});
    const Frozen& still = frozen[static_cast<std::size_t>(book)];
    const Var assignment = options.assignment == CodewordAssignment::soft
                               ? probabilities
                               : Var(still.chosen) + (probabilities - Var(still.stopped));
    const Var average = matmul(assignment, codewords);
    reconstruction = reconstruction + average;
    if (options.residual) rest = rest - average;
    logits.push_back(reshape(logit, {x.dim(0), 1, words}));
  }
  return {reconstruction, concat(logits, 1), Var(codes)};
}

using Surrogate = std::function<std::vector<Var>(std::span<const Var>)>;

Surrogate surrogate(std::span<const Tensor> base, const OpOptions& options) {
  const VectorQuantizationOptions wanted = parsed(options);
  const std::vector<Var> inputs(base.begin(), base.end());
  std::vector<Frozen> frozen;
  Tensor codes({base[0].dim(0), base[1].dim(0)}, detail::codes_dtype(base[1].dim(1)));
  composed(inputs, wanted, frozen, codes);
  return [wanted, frozen, codes](std::span<const Var> in) {
    std::vector<Frozen> held = frozen;
    Tensor same = codes;
    return composed(in, wanted, held, same);
  };
}

/// Columns of x and the codebook of one part of product quantization, as inputs of `composed`.
std::vector<Var> part_of(std::span<const Var> in, std::int64_t book) {
  const std::int64_t width = in[1].dim(2);
  return {slice(in[0], 1, book * width, (book + 1) * width), slice(in[1], 0, book, book + 1), Var()};
}

/// Outputs of the parts side by side.
std::vector<Var> joined(const std::vector<std::vector<Var>>& parts) {
  std::vector<Var> rows, logits, codes;
  for (const std::vector<Var>& part : parts) {
    rows.push_back(part[0]);
    logits.push_back(part[1]);
    codes.push_back(part[2]);
  }
  return {concat(rows, 1), concat(logits, 1), codes[0]};
}

Surrogate product_surrogate(std::span<const Tensor> base, const OpOptions& options) {
  const std::vector<Var> inputs(base.begin(), base.end());
  std::vector<Surrogate> parts;
  for (std::int64_t book = 0; book < base[1].dim(0); ++book) {
    std::vector<Tensor> part;
    for (const Var& input : part_of(inputs, book)) {
      part.push_back(input.defined() ? input.value().contiguous() : Tensor());
    }
    parts.push_back(surrogate(part, options));
  }
  return [parts](std::span<const Var> in) {
    std::vector<std::vector<Var>> outputs;
    for (std::size_t book = 0; book < parts.size(); ++book) {
      outputs.push_back(parts[book](part_of(in, static_cast<std::int64_t>(book))));
    }
    return joined(outputs);
  };
}

struct SampleSizes {
  std::int64_t rows, books, words, width;
};

std::vector<Tensor> inputs(const SampleSizes& size, std::uint64_t stream, bool bilinear = true) {
  return {sample_normal({size.rows, size.width}, stream),
          sample_normal({size.books, size.words, size.width}, stream + 1),
          bilinear ? sample_normal({size.width, size.width}, stream + 2) : Tensor()};
}

/// Small integers: similarities are exact, and many are equal.
std::vector<Tensor> tied(bool bilinear) {
  const auto integers = [](const Shape& shape, std::uint64_t stream) {
    return sample_integers(shape, stream, 2).to(DType::f64);
  };
  return {integers({9, 2}, 1), integers({3, 6, 2}, 2), bilinear ? integers({2, 2}, 3) : Tensor()};
}

std::vector<OpSample> samples() {
  std::vector<OpSample> all;
  std::uint64_t stream = 10;
  for (const std::string similarity : {"bilinear", "dot", "squared_distance"}) {
    for (const std::string assignment : {"hard", "soft"}) {
      for (const bool residual : {true, false}) {
        const bool bilinear = similarity == "bilinear";
        const OpOptions options{{"similarity", similarity}, {"assignment", assignment}, {"residual", residual}};
        // Few words for the width, so that backward goes through the tables; then many.
        all.push_back({"odd", inputs({5, 3, 4, 6}, stream, bilinear), options});
        all.push_back({"narrow", inputs({4, 3, 5, 2}, stream + 3, bilinear), options});
        stream += 6;
      }
    }
    all.push_back({"ties", tied(similarity == "bilinear"), {{"similarity", similarity}, {"temperature", 3.0}}});
  }
  for (const std::string assignment : {"hard", "soft"}) {
    const OpOptions options{{"assignment", assignment}};
    all.push_back({"one", inputs({1, 1, 1, 1}, 100), options});
    all.push_back({"empty", inputs({0, 2, 3, 2}, 103), options});
    all.push_back({"one word", inputs({3, 3, 1, 2}, 106), options});
    all.push_back({"one codebook", inputs({4, 1, 7, 3}, 109), options});
    all.push_back({"256 words", inputs({2, 2, 256, 3}, 112), {{"assignment", assignment}, {"temperature", 5.0}}});
    all.push_back({"257 words", inputs({2, 2, 257, 3}, 115), {{"assignment", assignment}, {"temperature", 5.0}}});
    all.push_back({"sixteen words", inputs({7, 3, 16, 20}, 118), options});
  }
  all.push_back({"two tiles", inputs({520, 2, 3, 2}, 121)});
  // Of tiles, and of the bands that backward takes.
  all.push_back({"two bands of groups", inputs({2100, 2, 3, 2}, 156), {{"books_together", std::int64_t{1}}}});
  for (const std::string assignment : {"hard", "soft"}) {
    for (const std::int64_t together : {1, 2, 3, 5}) {
      const OpOptions options{{"assignment", assignment}, {"books_together", together}};
      all.push_back({"groups", inputs({6, 5, 4, 7}, 140), options});
      all.push_back({"narrow groups",
                     inputs({6, 5, 4, 2}, 143, false),
                     {{"assignment", assignment}, {"books_together", together}, {"similarity", std::string("dot")}}});
    }
    all.push_back(
        {"more than 256 codewords", inputs({3, 5, 70, 3}, 146), {{"assignment", assignment}, {"temperature", 5.0}}});
  }
  all.push_back({"wide", inputs({3, 2, 5, 67}, 150)});
  all.push_back({"wide soft",
                 inputs({3, 2, 17, 66}, 153, false),
                 {{"assignment", std::string("soft")}, {"similarity", std::string("squared_distance")}}});
  all.push_back({"low temperature", inputs({4, 2, 3, 3}, 130), {{"temperature", 0.05}}});
  std::vector<Tensor> large = inputs({4, 2, 5, 3}, 133, false);
  for (Tensor& tensor : large) {
    if (!tensor.defined()) continue;
    for (double& value : tensor.mutable_span<double>()) value *= 1e6;
  }
  all.push_back({"extreme", large, {{"similarity", std::string("squared_distance")}}, false});
  return all;
}

/// Without the matrix and with it: bilinear similarity is what needs one.
std::vector<OpVariations> variations() {
  const auto words = [](const char* word) { return OptionValue{std::string(word)}; };
  const std::vector<std::pair<std::string, std::vector<OptionValue>>> rest{
      {"temperature", {1.5}},
      {"assignment", {words("soft")}},
      {"residual", {false}},
      {"books_together", {std::int64_t{2}, std::int64_t{5}}}};
  std::vector<OpVariations> all{{{"matrix", inputs({4, 5, 4, 3}, 501, true)}, rest},
                                {{"no matrix", inputs({4, 5, 4, 3}, 504, false)}, rest}};
  all[1].values.insert(all[1].values.begin(), {"similarity", {words("dot"), words("squared_distance")}});
  return all;
}

/// What bilinear similarity and its matrix exclude.
const std::vector<std::pair<std::string, std::string>> kMatrix{{"similarity=bilinear", "bilinear absent"},
                                                               {"similarity=dot", "bilinear given"},
                                                               {"similarity=squared_distance", "bilinear given"}};

std::vector<OpError> errors() {
  std::vector<Tensor> bad_row = inputs({5, 2, 3, 2}, 1), bad_word = inputs({5, 2, 3, 2}, 1);
  bad_row[0].mutable_data<double>()[7] = std::numeric_limits<double>::quiet_NaN();
  bad_word[1].mutable_data<double>()[9] = std::numeric_limits<double>::infinity();
  std::vector<Tensor> late_row = inputs({2060, 1, 2, 1}, 1);
  late_row[0].mutable_data<double>()[2053] = std::numeric_limits<double>::infinity();
  std::vector<Tensor> bad_matrix = inputs({5, 2, 3, 2}, 1), other_width = inputs({5, 2, 3, 2}, 1);
  bad_matrix[2] = sample_normal({2, 3}, 4);
  other_width[0] = sample_normal({5, 3}, 4);
  const OpOptions dot{{"similarity", std::string("dot")}};
  return {
      {"no codebook", inputs({5, 0, 3, 2}, 1), {}, "with B and W of at least 1; got [0, 3, 2]"},
      {"no word", inputs({5, 2, 0, 2}, 1), {}, "with B and W of at least 1; got [2, 0, 2]"},
      {"width", other_width, {}, "got x [5, 3] and codebooks [2, 3, 2]"},
      {"row", bad_row, {}, "row 3 of x is not"},
      {"row of a later slice", late_row, {}, "row 2053 of x is not"},
      {"codeword", bad_word, {}, "codeword 1 of codebook 1 is not"},
      {"no matrix", inputs({5, 2, 3, 2}, 1, false), {}, "needs a matrix for bilinear similarity"},
      {"matrix without use", inputs({5, 2, 3, 2}, 1), dot, "needs no bilinear matrix"},
      {"matrix beside distances",
       inputs({5, 2, 3, 2}, 1),
       {{"similarity", std::string("squared_distance")}},
       "needs no bilinear matrix"},
      {"matrix", bad_matrix, {}, "needs a bilinear matrix [D, D] = [2, 2]; got [2, 3]"},
      {"temperature", inputs({5, 2, 3, 2}, 1), {{"temperature", 0.0}}, "needs a finite temperature above 0"},
      {"small temperature",
       inputs({5, 2, 3, 2}, 1),
       {{"temperature", 1e-40}},
       "with a finite inverse in f32; got 1e-40"},
      {"books together",
       inputs({5, 2, 3, 2}, 1),
       {{"books_together", std::int64_t{-1}}},
       "needs a number of codebooks that go together of at least 0; got -1"},
      {"similarity", inputs({5, 2, 3, 2}, 1), {{"similarity", std::string("cosine")}}, "got 'cosine'"},
      {"assignment", inputs({5, 2, 3, 2}, 1), {{"assignment", std::string("firm")}}, "got 'firm'"},
  };
}

/// Of the tables: M times every codeword, and the inner products with later codebooks of the group.
double table_flops(const OpSample& sample, const Tensor& codebooks, bool bilinear) {
  const auto books = static_cast<double>(codebooks.dim(0)), words = static_cast<double>(codebooks.dim(1)),
             width = static_cast<double>(codebooks.dim(2));
  const auto together = static_cast<double>(detail::books_together(codebooks.shape(), parsed(sample.options)));
  return (bilinear ? 2 * books * words * width * width : 0) + books * (together - 1) * words * words * width;
}

void add_tables(Catalog& catalog) {
  catalog.add({
      .name = "vector_quantization_tables",
      .summary =
          "What residual quantization needs of its codebooks alone: projected codewords, inner products, biases.",
      .inputs = {{"codebooks", "[B, W, D]"}, {"bilinear", "[D, D]", InputKind::differentiable, true}},
      .options = {{"similarity", std::string("bilinear"), "bilinear, dot or squared_distance"},
                  {"residual", true, "inner products are needed"},
                  {"books_together", std::int64_t{0}, "G; 0: as many codebooks as make 256 codewords"}},
      .outputs = {{"projected", "[B * W, D]"},
                  {"products", "[B * W, G * W], or [0, 0] where not needed"},
                  {"bias", "[B * W] for squared_distance, else [0]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        const VectorQuantizationTables tables = vector_quantization_tables(in[0], in[1], parsed(options));
        return {tables.projected, tables.products, tables.bias};
      },
      .samples =
          [] {
            std::vector<OpSample> all;
            for (const std::string similarity : {"bilinear", "dot", "squared_distance"}) {
              const auto words = [&](const Shape& shape, std::uint64_t stream) {
                const std::int64_t width = shape[2];
                return std::vector<Tensor>{sample_normal(shape, stream), similarity == "bilinear"
                                                                             ? sample_normal({width, width}, stream + 1)
                                                                             : Tensor()};
              };
              const OpOptions options{{"similarity", similarity}};
              all.push_back({"odd", words({3, 4, 5}, 1), options});
              all.push_back({"one codebook", words({1, 3, 2}, 3), options});
              all.push_back({"one", words({1, 1, 1}, 5), options});
              all.push_back({"no width", words({2, 3, 0}, 7), options});
              all.push_back({"independent", words({2, 3, 2}, 9), {{"similarity", similarity}, {"residual", false}}});
              for (const std::int64_t together : {1, 2, 5}) {
                all.push_back(
                    {"groups", words({5, 3, 4}, 11), {{"similarity", similarity}, {"books_together", together}}});
              }
            }
            return all;
          },
      .errors =
          [] {
            return std::vector<OpError>{
                {"rank", {sample_normal({3, 2}, 1), sample_normal({2, 2}, 2)}, {}, "got [3, 2]"},
                {"matrix", {sample_normal({1, 3, 2}, 1), sample_normal({3, 3}, 2)}, {}, "= [2, 2]; got [3, 3]"},
                {"no matrix", {sample_normal({1, 3, 2}, 1), {}}, {}, "needs a matrix for bilinear similarity"},
                {"matrix without use",
                 {sample_normal({1, 3, 2}, 1), sample_normal({2, 2}, 2)},
                 {{"similarity", std::string("dot")}},
                 "needs no bilinear matrix"},
                {"matrix beside distances",
                 {sample_normal({1, 3, 2}, 1), sample_normal({2, 2}, 2)},
                 {{"similarity", std::string("squared_distance")}},
                 "needs no bilinear matrix"},
            };
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({8, 128, 128}, 1), sample_normal({128, 128}, 2)}};
          },
      .flops = [](const OpSample& sample) { return table_flops(sample, sample.inputs[0], sample.inputs[1].defined()); },
      .variations =
          [] {
            const std::vector<OptionValue> together{std::int64_t{1}, std::int64_t{2}, std::int64_t{5}};
            return std::vector<OpVariations>{{{"matrix", {sample_normal({5, 3, 4}, 521), sample_normal({4, 4}, 522)}},
                                              {{"residual", {false}}, {"books_together", together}}},
                                             {{"no matrix", {sample_normal({5, 3, 4}, 523), {}}},
                                              {{"similarity", {std::string("dot"), std::string("squared_distance")}},
                                               {"residual", {false}},
                                               {"books_together", together}}}};
          },
      .apart = kMatrix,
  });
}

std::vector<OpSample> product_samples() {
  std::vector<OpSample> all;
  std::uint64_t stream = 200;
  const auto add = [&](const char* name, const SampleSizes& size, const OpOptions& options) {
    all.push_back({name,
                   {sample_normal({size.rows, size.books * size.width}, stream),
                    sample_normal({size.books, size.words, size.width}, stream + 1)},
                   options});
    stream += 2;
  };
  for (const std::string similarity : {"squared_distance", "dot"}) {
    for (const std::string assignment : {"hard", "soft"}) {
      const OpOptions options{{"similarity", similarity}, {"assignment", assignment}};
      add("odd", {5, 3, 4, 2}, options);
      add("one", {1, 1, 1, 1}, options);
      add("empty", {0, 2, 3, 2}, options);
      add("one part", {4, 1, 5, 3}, options);
    }
  }
  add("257 words", {2, 2, 257, 2}, {{"temperature", 10.0}});
  add("two tiles", {520, 2, 3, 2}, {});
  const std::vector<Tensor> exact = tied(false);
  all.push_back({"ties", {concat({exact[0], exact[0], exact[0]}, 1).value(), exact[1]}, {{"temperature", 3.0}}});
  return all;
}

void add_product(Catalog& catalog) {
  std::vector<OpOption> options = documented_options();
  options.resize(3);
  options[0] = {"similarity", std::string("squared_distance"), "squared_distance or dot"};
  catalog.add({
      .name = "product_quantization",
      .summary = "Each of B parts of a row is replaced by its most similar codeword.",
      .inputs = {{"x", "[T, B * D]"}, {"codebooks", "[B, W, D]"}},
      .options = options,
      .outputs = {{"reconstruction", "[T, B * D]"}, {"logits", "[T, B, W]"}, {"codes", "u8 or i32 [T, B]"}},
      .call = [](std::span<const Var> in, const OpOptions& values) -> std::vector<Var> {
        const VectorQuantizationOptions wanted = parsed(with_distance(values));
        VectorQuantization out = product_quantization(
            in[0], in[1],
            {.similarity = wanted.similarity, .temperature = wanted.temperature, .assignment = wanted.assignment});
        return {out.reconstruction, out.logits, Var(out.codes)};
      },
      .samples = product_samples,
      .errors =
          [] {
            std::vector<Tensor> bad{sample_normal({5, 4}, 1), sample_normal({2, 3, 2}, 2)};
            bad[0].mutable_data<double>()[7] = std::numeric_limits<double>::quiet_NaN();
            return std::vector<OpError>{
                {"width", {sample_normal({5, 2}, 1), sample_normal({2, 3, 2}, 2)}, {}, "got x [5, 2] and"},
                {"row", bad, {}, "row 1 of x is not"},
                {"bilinear",
                 {sample_normal({5, 4}, 1), sample_normal({2, 3, 2}, 2)},
                 {{"similarity", std::string("bilinear")}},
                 "got bilinear"}};
          },
      .large =
          [] {
            return OpSample{"large", {sample_normal({8192, 128}, 1), sample_normal({8, 256, 16}, 2)}};
          },
      .flops =
          [](const OpSample& sample) {
            return 2.0 * static_cast<double>(sample.inputs[0].numel()) * static_cast<double>(sample.inputs[1].dim(1));
          },
      .f32_tolerance = 5e-6,  // a logit is the small difference of two large terms
      .surrogate = [](std::span<const Tensor> base,
                      const OpOptions& values) { return product_surrogate(base, with_distance(values)); },
      .variations =
          [] {
            return std::vector<OpVariations>{{{"parts", {sample_normal({4, 6}, 511), sample_normal({2, 5, 3}, 512)}},
                                              {{"similarity", {std::string("dot")}},
                                               {"temperature", {0.4, 3.0}},
                                               {"assignment", {std::string("soft")}}}}};
          },
  });
}

}  // namespace

void entries::add_vector_quantization(Catalog& catalog) {
  catalog.add({
      .name = kName,
      .summary = "Additive residual quantization: a row as the sum of one codeword of each codebook.",
      .inputs = {{"x", "[T, D]"},
                 {"codebooks", "[B, W, D]"},
                 {"bilinear", "[D, D]", InputKind::differentiable, true, "for similarity bilinear"}},
      .options = documented_options(),
      .outputs = {{"reconstruction", "[T, D]"}, {"logits", "[T, B, W]"}, {"codes", "u8 or i32 [T, B]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        VectorQuantization out = vector_quantization(in[0], in[1], in[2], parsed(options));
        return {out.reconstruction, out.logits, Var(out.codes)};
      },
      .samples = samples,
      .errors = errors,
      .large =
          [] {
            return OpSample{"large",
                            {sample_normal({8192, 128}, 1), sample_normal({8, 16, 128}, 2, 0.3),
                             sample_normal({128, 128}, 3, 0.1)}};
          },
      .flops =
          [](const OpSample& sample) {
            const Tensor &x = sample.inputs[0], &codebooks = sample.inputs[1];
            const double columns = static_cast<double>(codebooks.dim(0) * codebooks.dim(1));
            return 2.0 * static_cast<double>(x.numel()) * columns +
                   table_flops(sample, codebooks, sample.inputs[2].defined());
          },
      .surrogate = surrogate,
      .variations = variations,
      .apart = kMatrix,
  });
  add_tables(catalog);
  add_product(catalog);
}

}  // namespace tally::ops
